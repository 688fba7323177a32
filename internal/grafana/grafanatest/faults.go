package grafanatest

import (
	"net/http"
	"slices"
	"time"
)

// Verb is the operation of a call.
type Verb string

// The verbs of calls.
const (
	VerbCreate Verb = "create"
	VerbGet    Verb = "get"
	VerbList   Verb = "list"
	VerbUpdate Verb = "update"
	VerbDelete Verb = "delete"
)

// Action is what a permission allows: secret.securevalues:<action>.
type Action string

// The actions of permissions.
const (
	ActionCreate Action = "create"
	ActionRead   Action = "read"
	ActionWrite  Action = "write"
	ActionDelete Action = "delete"
)

// action returns the permission that the verb needs.
func (v Verb) action() Action {
	switch v {
	case VerbCreate:
		return ActionCreate
	case VerbUpdate:
		return ActionWrite
	case VerbDelete:
		return ActionDelete
	case VerbGet, VerbList:
	}
	return ActionRead
}

// Call is a call that was answered or cut.
type Call struct {
	Verb      Verb
	Method    string
	Namespace string
	Name      string
	Selector  string
	UserAgent string
	Code      int // 0 if the connection was cut
	Start     time.Time
	End       time.Time
}

// Calls returns the calls since the last ResetCalls, in the order in which they took effect. A call is recorded before its effect is visible.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make([]Call, len(s.calls))
	for i, call := range s.calls {
		calls[i] = *call
	}
	return calls
}

// ResetCalls forgets the calls.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// SetLatency delays each answer.
func (s *Server) SetLatency(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = d
}

// Fault is a scripted answer. An empty Verb, Namespace or Name matches every call.
type Fault struct {
	Verb      Verb
	Namespace string
	Name      string

	// Code, Body, ContentType and Header replace the real answer.
	Code        int
	Body        string
	ContentType string
	Header      http.Header

	// Cut drops the connection before the call has an effect.
	Cut bool
	// AfterEffect lets the call take effect, then answers as above, or drops the connection if Code is 0.
	AfterEffect bool
	// Hang does not answer until the fault is removed, the caller cancels or the server is closed.
	Hang bool
	// Delay comes before anything else.
	Delay time.Duration
	// Rewrite changes the body of the real answer.
	Rewrite func(body []byte) []byte

	// Times is how often the fault occurs; 0 is always.
	Times int

	removed chan struct{}
	left    int
}

// Inject adds a fault, which takes precedence over earlier ones, and returns a function that removes it.
func (s *Server) Inject(f Fault) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.removed, f.left = make(chan struct{}), f.Times
	s.faults = append([]*Fault{&f}, s.faults...)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(&f)
	}
}

// ClearFaults removes every fault.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range slices.Clone(s.faults) {
		s.drop(f)
	}
}

// drop removes a fault. s.mu must be locked.
func (s *Server) drop(f *Fault) {
	if i := slices.Index(s.faults, f); i >= 0 {
		s.faults = slices.Delete(s.faults, i, i+1)
		close(f.removed)
	}
}

// match returns the fault of this call, if any, and counts it. s.mu must be locked.
func (s *Server) match(c Call) *Fault {
	for _, f := range s.faults {
		if (f.Verb == "" || f.Verb == c.Verb) && (f.Namespace == "" || f.Namespace == c.Namespace) && (f.Name == "" || f.Name == c.Name) {
			if f.Times > 0 {
				if f.left--; f.left == 0 && !f.Hang {
					s.drop(f)
				}
			}
			return f
		}
	}
	return nil
}
