package controlplane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// auditPolicy has each request logged once, without bodies: when it was answered, or, as a watch, when it began.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - level: Metadata
    verbs: [watch]
    omitStages: [RequestReceived, ResponseComplete]
  - level: Metadata
    omitStages: [RequestReceived, ResponseStarted]
`

// AuditEvent is one request that the API server answered.
type AuditEvent struct {
	User      string
	Verb      string // get, list, watch, create, update, patch, delete or deletecollection
	Group     string // of the API; empty for the core one
	Resource  string // plural, and empty for a path such as /version
	Namespace string
	// Name is empty for a list, for deletecollection, and for a create whose name the API server made.
	Name        string
	Subresource string
	Code        int  // of HTTP
	Denied      bool // by RBAC
	UserAgent   string
	Time        time.Time // when the request arrived
}

// Mark is a point in the audit log. The zero value is its beginning.
type Mark struct {
	offset int64
	err    error
}

// Mark returns the present end of the audit log, before a line that is being written. Audit reports the error if there is none.
func (c *ControlPlane) Mark() Mark {
	log, err := os.Open(c.log)
	if err != nil {
		return Mark{err: err}
	}
	defer func() { _ = log.Close() }()
	end, err := log.Seek(0, io.SeekEnd)
	last := make([]byte, 1)
	for ; err == nil && end > 0; end-- {
		if _, err = log.ReadAt(last, end-1); last[0] == '\n' {
			break
		}
	}
	return Mark{offset: end, err: err}
}

// Audit returns the requests of all users since the mark, in the order of their answers. A request is there once its answer
// has been read to the end, a watch once it began.
func (c *ControlPlane) Audit(since Mark) ([]AuditEvent, error) {
	if since.err != nil {
		return nil, since.err
	}
	file, err := os.Open(c.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(since.offset, io.SeekStart); err != nil {
		return nil, err
	}
	log, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	var events []AuditEvent
	for line := range bytes.Lines(log) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written at this moment
		}
		event, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		events = append(events, event)
	}
	return events, nil
}

// parse reads one line of the log: an Event of audit.k8s.io/v1.
func parse(line []byte) (AuditEvent, error) {
	var e struct {
		Verb      string `json:"verb"`
		UserAgent string `json:"userAgent"`
		User      struct {
			Username string `json:"username"`
		} `json:"user"`
		ObjectRef struct {
			APIGroup    string `json:"apiGroup"`
			Resource    string `json:"resource"`
			Namespace   string `json:"namespace"`
			Name        string `json:"name"`
			Subresource string `json:"subresource"`
		} `json:"objectRef"`
		ResponseStatus struct {
			Code int `json:"code"`
		} `json:"responseStatus"`
		Annotations              map[string]string `json:"annotations"`
		RequestReceivedTimestamp time.Time         `json:"requestReceivedTimestamp"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return AuditEvent{}, err
	}
	return AuditEvent{
		User:        e.User.Username,
		Verb:        e.Verb,
		Group:       e.ObjectRef.APIGroup,
		Resource:    e.ObjectRef.Resource,
		Namespace:   e.ObjectRef.Namespace,
		Name:        e.ObjectRef.Name,
		Subresource: e.ObjectRef.Subresource,
		Code:        e.ResponseStatus.Code,
		Denied:      e.Annotations["authorization.k8s.io/decision"] == "forbid",
		UserAgent:   e.UserAgent,
		Time:        e.RequestReceivedTimestamp,
	}, nil
}
