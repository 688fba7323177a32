package grafanatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	group        = "secret.grafana.app"
	maxBodyBytes = 16 << 20
	maxValue     = 24576
	maxRunes     = 25
	maxServices  = 64
)

// reply is an answer before it is sent.
type reply struct {
	code        int
	contentType string
	body        []byte
}

// saying puts words into headers, and into the message of a failure.
func (r reply) saying(header http.Header, words string) reply {
	for _, name := range []string{"Server", "Warning", "Set-Cookie", "Www-Authenticate", "X-Request-Id"} {
		header.Set(name, words)
	}
	header.Set("Location", "http://"+words+".example.com/"+words)
	if r.code >= http.StatusBadRequest {
		r.body = bytes.Replace(r.body, []byte(`"message":"`), []byte(`"message":"`+words+` `), 1)
	}
	return r
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Read to the end, or the server would not notice that a caller cancels.
	content, _ := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1)) // a truncated body cannot be decoded
	r.Body = io.NopCloser(bytes.NewReader(content))
	parsed, path := s.parse(r, content)
	call := &parsed
	call.Start = time.Now()
	code := 0 // received by the caller
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.record(call)
		call.Code, call.End = code, time.Now()
	}()

	s.mu.Lock()
	fault, latency := s.match(*call), s.latency
	s.mu.Unlock()
	if fault == nil {
		fault = &Fault{}
	}
	if !s.wait(r, latency+fault.Delay) || (fault.Hang && !s.hang(r, fault)) {
		cut(w)
		return
	}

	var answer reply
	switch scripted := fault.Code != 0; {
	case fault.Cut, fault.AfterEffect && !scripted:
		if fault.AfterEffect {
			s.answer(r, call, path)
		}
		cut(w)
		return
	case scripted:
		if fault.AfterEffect {
			s.answer(r, call, path)
		}
		answer = reply{code: fault.Code, contentType: fault.ContentType, body: []byte(fault.Body)}
	default:
		answer = s.answer(r, call, path)
		if fault.Rewrite != nil {
			answer.body = fault.Rewrite(answer.body)
		}
	}
	if s.options.words != "" {
		answer = answer.saying(w.Header(), s.options.words)
	}
	maps.Copy(w.Header(), fault.Header)
	if answer.contentType != "" {
		w.Header().Set("Content-Type", answer.contentType)
	}
	code = answer.code
	w.WriteHeader(code)
	_, _ = w.Write(answer.body)
}

// wait waits. It reports false if the caller cancelled or the server was closed.
func (s *Server) wait(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-s.closed:
	}
	return false
}

func (s *Server) hang(r *http.Request, f *Fault) bool {
	select {
	case <-f.removed:
		return true
	case <-r.Context().Done():
	case <-s.closed:
	}
	return false
}

// cut drops the connection without an answer.
func cut(http.ResponseWriter) { panic(http.ErrAbortHandler) }

var pathPattern = regexp.MustCompile(`^/apis/` + regexp.QuoteMeta(group) + `/([^/]+)/namespaces/([^/]+)/securevalues(?:/([^/]+))?$`)

// route is a path of the API.
type route struct {
	path       string // below the sub-path
	known      bool   // it is that of the collection, or of a value in it
	apiVersion string
}

// ofGroup reports whether the path is one of the API group, whether that has such a resource or not.
func (r route) ofGroup() bool { return strings.HasPrefix(r.path+"/", "/apis/"+group+"/") }

// parse reads method, path and name of a request.
func (s *Server) parse(r *http.Request, content []byte) (Call, route) {
	call := Call{Method: r.Method, UserAgent: r.UserAgent(), Selector: r.URL.Query().Get("labelSelector")}
	path, under := strings.CutPrefix(r.URL.Path, s.options.basePath)
	m := pathPattern.FindStringSubmatch(path)
	if !under {
		return call, route{}
	}
	if m == nil {
		return call, route{path: path}
	}
	call.Namespace, call.Name = m[2], m[3]
	switch {
	case r.Method == http.MethodPost && call.Name == "":
		call.Verb, call.Name = VerbCreate, nameIn(content)
	case r.Method == http.MethodGet && call.Name == "":
		call.Verb = VerbList
	case r.Method == http.MethodGet:
		call.Verb = VerbGet
	case r.Method == http.MethodPut && call.Name != "":
		call.Verb = VerbUpdate
	case r.Method == http.MethodDelete && call.Name != "":
		call.Verb = VerbDelete
	}
	return call, route{path: path, known: true, apiVersion: m[1]}
}

// nameIn returns the name in a body.
func nameIn(content []byte) string {
	var b body
	if json.Unmarshal(content, &b) != nil {
		return ""
	}
	return b.Metadata.Name
}

// answer serves a call, and records it before its effect is visible.
func (s *Server) answer(r *http.Request, call *Call, path route) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := s.judge(r, *call, path)
	call.Code = answer.code
	s.record(call)
	return answer
}

// record records the call once. s.mu must be locked.
func (s *Server) record(call *Call) {
	if call.End.IsZero() {
		call.End = time.Now()
		s.calls = append(s.calls, call)
	}
}

// judge serves a call. It checks authentication first, then the API version, the namespace and the permission, and only then the body and
// the stored value. s.mu must be locked.
func (s *Server) judge(r *http.Request, call Call, path route) reply {
	token, given := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if user, password, basic := r.BasicAuth(); basic {
		token, given = asToken(user, password), true
	}
	permissions, known := s.tokens[token]
	switch {
	case !given:
		return jsonReply(http.StatusUnauthorized, map[string]any{"message": "Unauthorized"})
	case !known:
		return jsonReply(http.StatusUnauthorized, map[string]any{
			"extra": nil, "message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401, "traceID": "",
		})
	case s.options.notServed || !path.ofGroup():
		return plainReply(http.StatusNotFound, "404 page not found\n")
	case r.Method == http.MethodGet && slices.Contains([]string{"/apis/" + group, "/apis/" + group + "/" + s.options.apiVersion}, path.path):
		return s.discovered(path.path)
	case !path.known || path.apiVersion != s.options.apiVersion:
		return failureReply(http.StatusNotFound, "NotFound", "the server could not find the requested resource", map[string]any{})
	}
	if problem := malformedNamespace(call.Namespace); problem != "" {
		return plainReply(http.StatusInternalServerError, "Internal Server Error: "+strconv.Quote(r.URL.Path)+": "+problem+"\n")
	}
	if !slices.Contains(s.options.namespaces, call.Namespace) {
		return forbidden(call, "invalid namespace")
	}
	if call.Verb == "" {
		return failureReply(http.StatusMethodNotAllowed, "MethodNotAllowed",
			"the server does not allow this method on the requested resource", map[string]any{})
	}
	if !allowed(permissions, call.Verb.action(), call.Namespace, call.Name) {
		return forbidden(call, "unauthorized request")
	}
	if watch, _ := strconv.ParseBool(r.URL.Query().Get("watch")); watch && call.Verb == VerbList {
		return failureReply(http.StatusMethodNotAllowed, "MethodNotAllowed", "watch is not supported on resources of kind \"securevalues\"",
			map[string]any{"group": group, "kind": "securevalues"})
	}
	return s.act(r, call, permissions)
}

func (s *Server) act(r *http.Request, call Call, permissions []Permission) reply {
	switch call.Verb {
	case VerbCreate:
		return s.create(r, call)
	case VerbUpdate:
		return s.update(r, call)
	case VerbList:
		return s.list(r, call, permissions)
	case VerbGet, VerbDelete:
	}
	v := s.values[call.Namespace][call.Name]
	if v == nil {
		return notFound(call.Name)
	}
	if call.Verb == VerbGet {
		return s.object(http.StatusOK, call.Namespace, v)
	}
	delete(s.values[call.Namespace], call.Name)
	return jsonReply(http.StatusOK, map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Success", "code": 200,
		"details": map[string]any{"name": call.Name, "kind": "SecureValue"},
	})
}

// malformedNamespace returns what is wrong with a malformed namespace.
func malformedNamespace(namespace string) string {
	if id, stack := strings.CutPrefix(namespace, "stacks-"); stack {
		if _, err := strconv.ParseInt(id, 10, 64); err != nil {
			return "invalid stack id"
		}
	}
	if id, org := strings.CutPrefix(namespace, "org-"); org {
		if n, err := strconv.ParseInt(id, 10, 64); err != nil {
			return "invalid org id"
		} else if n == 1 {
			return "use default rather than org-1"
		}
	}
	return ""
}

func allowed(permissions []Permission, action Action, namespace, name string) bool {
	return slices.ContainsFunc(permissions, func(p Permission) bool {
		return p.Action == action && (p.Namespace == "*" || p.Namespace == namespace) && (p.Name == "" || name == "" || p.Name == name)
	})
}

// body is the body of a write.
type body struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name            string            `json:"name"`
		GenerateName    string            `json:"generateName"`
		Namespace       string            `json:"namespace"`
		ResourceVersion string            `json:"resourceVersion"`
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
		OwnerReferences []OwnerReference  `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		Description string   `json:"description"`
		Value       *string  `json:"value"`
		Ref         string   `json:"ref"`
		Keeper      string   `json:"keeper"`
		Decrypters  []string `json:"decrypters"`
	} `json:"spec"`
}

// read reads the body of a write. It answers if it cannot.
func (s *Server) read(r *http.Request, call Call) (*body, *reply) {
	content, err := io.ReadAll(r.Body)
	if err != nil || len(content) > maxBodyBytes {
		return nil, new(failureReply(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "the body of the request was too large", nil))
	}
	switch mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType {
	case "", "application/json":
	case "application/yaml":
		if content, err = yaml.ToJSON(content); err != nil {
			return nil, new(badRequest("the object provided is unrecognized"))
		}
	default:
		return nil, new(failureReply(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "the body of the request was in an unknown format", nil))
	}
	var b body
	if err := json.Unmarshal(content, &b); err != nil {
		return nil, new(badRequest("the object provided is unrecognized"))
	}
	switch {
	case b.Kind != "" && b.Kind != "SecureValue":
		return nil, new(badRequest("the object provided is unrecognized"))
	case b.APIVersion != "" && b.APIVersion != group+"/"+s.options.apiVersion:
		return nil, new(badRequest("the API version in the data does not match the expected API version"))
	case b.Metadata.Namespace != "" && b.Metadata.Namespace != call.Namespace:
		return nil, new(badRequest("the namespace of the provided object does not match the namespace sent on the request"))
	case call.Verb == VerbUpdate && b.Metadata.Name != call.Name:
		return nil, new(badRequest("the name of the object does not match the name on the URL"))
	}
	return &b, nil
}

func (s *Server) create(r *http.Request, call Call) reply {
	b, refusal := s.read(r, call)
	if refusal != nil {
		return *refusal
	}
	name := b.Metadata.Name
	if name == "" {
		name = b.Metadata.GenerateName + strings.ToLower(strconv.FormatInt(time.Now().UnixNano(), 36))
	}
	if refusal := s.refuse(b, name, true); refusal != nil {
		return *refusal
	}
	if s.values[call.Namespace][name] != nil {
		return failureReply(http.StatusConflict, "AlreadyExists", fmt.Sprintf("securevalues.%s %q already exists", group, name),
			map[string]any{"name": name, "group": group, "kind": "securevalues"})
	}
	return s.object(http.StatusCreated, call.Namespace, s.store(call.Namespace, b.stored(name, []byte(*b.Spec.Value))))
}

func (s *Server) update(r *http.Request, call Call) reply {
	b, refusal := s.read(r, call)
	if refusal != nil {
		return *refusal
	}
	old := s.values[call.Namespace][call.Name]
	if old == nil {
		return notFound(call.Name)
	}
	if refusal := s.refuse(b, call.Name, false); refusal != nil {
		return *refusal
	}
	if s.options.enforceResourceVersion && b.Metadata.ResourceVersion != resourceVersion(old) {
		return failureReply(http.StatusConflict, "Conflict", "Operation cannot be fulfilled: the object has been modified",
			map[string]any{"name": call.Name, "group": group, "kind": "securevalues"})
	}
	value := old.Value // a write without a value keeps the old one
	if b.Spec.Value != nil {
		value = []byte(*b.Spec.Value)
	}
	return s.object(http.StatusOK, call.Namespace, s.store(call.Namespace, b.stored(call.Name, value)))
}

// stored returns what a write stores: everything in the body, and nothing of the old value.
func (b *body) stored(name string, value []byte) Stored {
	annotations := maps.Clone(b.Metadata.Annotations)
	for _, own := range []string{
		"kubectl.kubernetes.io/last-applied-configuration", "grafana.app/createdBy", "grafana.app/updatedBy", "grafana.app/updatedTimestamp",
	} {
		delete(annotations, own)
	}
	return Stored{
		Name: name, Labels: b.Metadata.Labels, Annotations: annotations, OwnerReferences: b.Metadata.OwnerReferences,
		Description: b.Spec.Description, Decrypters: b.Spec.Decrypters, Value: value,
	}
}

func (s *Server) list(r *http.Request, call Call, permissions []Permission) reply {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		return badRequest("unable to parse the label selector")
	}
	byField, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil || slices.ContainsFunc(byField.Requirements(), func(f fields.Requirement) bool { return !slices.Contains(selectable, f.Field) }) {
		return badRequest("unable to parse the field selector")
	}
	items := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.values[call.Namespace])) {
		v := s.values[call.Namespace][name]
		if selector.Matches(labels.Set(v.Labels)) && v.matches(call.Namespace, byField) && allowed(permissions, ActionRead, call.Namespace, name) {
			items = append(items, s.render(call.Namespace, v))
		}
	}
	return jsonReply(http.StatusOK, map[string]any{
		"apiVersion": group + "/" + s.options.apiVersion, "kind": "SecureValueList", "metadata": map[string]any{}, "items": items,
	})
}

// selectable are the fields that a selector may name.
var selectable = []string{"metadata.name", "metadata.namespace", "spec.decrypter"}

// matches reports whether the value, with one of its decrypters, matches the selector.
func (s Stored) matches(namespace string, selector fields.Selector) bool {
	known := fields.Set{"metadata.name": s.Name, "metadata.namespace": namespace}
	return slices.ContainsFunc(append([]string{""}, s.Decrypters...), func(decrypter string) bool {
		known["spec.decrypter"] = decrypter
		return selector.Matches(known)
	})
}

// refuse answers a write that breaks a rule. The last two are plain errors in Grafana, which become 500.
func (s *Server) refuse(b *body, name string, isCreate bool) *reply {
	if problems := s.validate(b, name, isCreate); len(problems) > 0 {
		return new(s.invalid(name, problems))
	}
	if _, found := b.Metadata.Annotations["grafana.app/folder"]; found {
		return new(failureReply(http.StatusInternalServerError, "", "secure values have no folder", nil))
	}
	if b.Spec.Ref != "" {
		return new(failureReply(http.StatusInternalServerError, "", "a reference needs a keeper of a third party", nil))
	}
	return nil
}

// problem is a cause of a Status of reason Invalid.
type problem struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field"`
}

// validate applies the rules of the real validator.
func (s *Server) validate(b *body, name string, isCreate bool) []problem {
	if bad := validation.IsDNS1123Subdomain(name); bad != nil {
		return []problem{{"FieldValueInvalid", "Invalid value: " + bad[0], "metadata.name"}}
	}
	var problems []problem
	add := func(reason, field, message string) { problems = append(problems, problem{reason, message, field}) }
	if n := utf8.RuneCountInString(b.Spec.Description); n == 0 {
		add("FieldValueRequired", "spec.description", "a `description` is required")
	} else if n > maxRunes && !s.options.longDescriptions {
		add("FieldValueTooLong", "spec.description", fmt.Sprintf("may not be more than %d characters", maxRunes))
	}
	hasValue := b.Spec.Value != nil && *b.Spec.Value != ""
	switch {
	case hasValue && b.Spec.Ref != "":
		add("FieldValueForbidden", "spec", "only one of `value` or `ref` can be set")
	case !isCreate && b.Spec.Ref != "": // all stored ones have a value
		add("FieldValueForbidden", "spec", "`ref` cannot replace `value`")
	case isCreate && !hasValue && b.Spec.Ref == "", !isCreate && b.Spec.Value != nil && !hasValue:
		add("FieldValueRequired", "spec", "either a `value` or `ref` is required")
	case hasValue && len(*b.Spec.Value) > maxValue:
		add("FieldValueTooLong", "spec.value", fmt.Sprintf("may not be more than %d bytes", maxValue))
	}
	if b.Spec.Keeper != "" {
		add("FieldValueForbidden", "spec", "the `keeper` cannot be changed")
	}
	if len(b.Metadata.OwnerReferences) > 1 {
		add("FieldValueInvalid", "metadata.ownerReferences", "only one owner is allowed")
	}
	if slices.ContainsFunc(b.Metadata.OwnerReferences, func(o OwnerReference) bool { return !strings.Contains(o.APIVersion, "/") }) {
		add("FieldValueInvalid", "metadata.ownerReferences", "an API group is required")
	}
	if len(b.Spec.Decrypters) > maxServices {
		return []problem{{"FieldValueTooMany", fmt.Sprintf("must have at most %d items", maxServices), "spec.decrypters"}}
	}
	seen := map[string]bool{}
	for i, decrypter := range b.Spec.Decrypters {
		trimmed := strings.TrimSpace(decrypter) // only for the check: it is stored as sent
		if trimmed == "" || seen[trimmed] || validation.IsValidLabelValue(trimmed) != nil {
			return []problem{{"FieldValueInvalid", "Invalid value", fmt.Sprintf("spec.decrypters.[%d]", i)}}
		}
		seen[trimmed] = true
	}
	return problems
}

func (s *Server) invalid(name string, problems []problem) reply {
	code, reason := http.StatusUnprocessableEntity, "Invalid"
	if s.options.invalidAs400 {
		code, reason = http.StatusBadRequest, "BadRequest"
	}
	return failureReply(code, reason, fmt.Sprintf("SecureValue.%s %q is invalid: %s: %s", group, name, problems[0].Field, problems[0].Message),
		map[string]any{"name": name, "group": group, "kind": "SecureValue", "causes": problems})
}

// render returns a value as in answers, without its content.
func (s *Server) render(namespace string, v *Stored) map[string]any {
	annotations := maps.Clone(v.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations["grafana.app/createdBy"] = "service-account:operator"
	annotations["grafana.app/updatedBy"] = "service-account:operator"
	metadata := map[string]any{
		"name": v.Name, "namespace": namespace, "uid": v.UID, "resourceVersion": resourceVersion(v),
		"creationTimestamp": v.CreatedAt.Format(time.RFC3339), "annotations": annotations,
	}
	if len(v.Labels) > 0 {
		metadata["labels"] = v.Labels
	}
	if len(v.OwnerReferences) > 0 {
		metadata["ownerReferences"] = v.OwnerReferences
	}
	status := map[string]any{}
	if !s.options.omitStatus {
		status = map[string]any{"version": v.Version, "externalID": "", "keeper": v.Keeper}
	}
	spec := map[string]any{"description": v.Description}
	if len(v.Decrypters) > 0 {
		spec["decrypters"] = v.Decrypters
	}
	return map[string]any{
		"apiVersion": group + "/" + s.options.apiVersion, "kind": "SecureValue",
		"metadata": metadata, "spec": spec, "status": status,
	}
}

func (s *Server) object(code int, namespace string, v *Stored) reply {
	return jsonReply(code, s.render(namespace, v))
}

// resourceVersion is the time of the last write in whole seconds.
func resourceVersion(v *Stored) string { return strconv.FormatInt(v.UpdatedAt.Unix(), 10) }

// discovered says what the API serves.
func (s *Server) discovered(path string) reply {
	version := map[string]any{"groupVersion": group + "/" + s.options.apiVersion, "version": s.options.apiVersion}
	if path == "/apis/"+group {
		return jsonReply(http.StatusOK, map[string]any{
			"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": []any{version}, "preferredVersion": version,
		})
	}
	return jsonReply(http.StatusOK, map[string]any{
		"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version["groupVersion"], "resources": []any{map[string]any{
			"name": "securevalues", "singularName": "securevalue", "namespaced": true, "kind": "SecureValue",
			"verbs": []Verb{VerbCreate, VerbDelete, VerbGet, VerbList, VerbUpdate},
		}},
	})
}

func notFound(name string) reply {
	return failureReply(http.StatusNotFound, "NotFound", fmt.Sprintf("securevalue.%s %q not found", group, name),
		map[string]any{"name": name, "group": group, "kind": "securevalue"})
}

func forbidden(call Call, why string) reply {
	return failureReply(http.StatusForbidden, "Forbidden", fmt.Sprintf(
		"securevalues.%s %q is forbidden: User \"operator\" cannot %s resource \"securevalues\" in API group %q in the namespace %q: %s",
		group, call.Name, call.Verb, group, call.Namespace, why),
		map[string]any{"name": call.Name, "group": group, "kind": "securevalues"})
}

func badRequest(message string) reply {
	return failureReply(http.StatusBadRequest, "BadRequest", message, nil)
}

func failureReply(code int, reason, message string, details map[string]any) reply {
	status := map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"message": message, "reason": reason, "code": code,
	}
	if details != nil {
		status["details"] = details
	}
	return jsonReply(code, status)
}

func jsonReply(code int, content any) reply {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(content); err != nil {
		panic(err) // maps of strings and numbers always encode
	}
	return reply{code: code, contentType: "application/json", body: buf.Bytes()}
}

func plainReply(code int, text string) reply {
	return reply{code: code, contentType: "text/plain; charset=utf-8", body: []byte(text)}
}
