package v1alpha1

// Reasons of Fresh. What to do about each: docs/reference/reasons.md.
const (
	// ReasonCurrent, with Fresh=True: the value is younger than maxAge and has not expired.
	ReasonCurrent = "Current"

	// ReasonOverdue: the value was last rotated longer than maxAge ago. The message names the maker of the Secret where it is known.
	ReasonOverdue = "Overdue"

	// ReasonExpired: expirationTime has passed. It is said where the value is overdue, too.
	ReasonExpired = "Expired"

	// ReasonNotWritten, with Fresh=Unknown: no value of the object was written to Grafana yet.
	ReasonNotWritten = "NotWritten"
)
