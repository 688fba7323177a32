package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// userName is that of each token.
const userName = "contract"

// Keys of what a token may do, in the extra of its user.
const (
	extraNamespace = "namespace"
	extraActions   = "actions"
)

// allActions are what a token may do in Grafana: secret.securevalues:<action>.
var allActions = []string{"create", "read", "write", "delete"}

// actions are the actions that the verbs of the framework need.
var actions = map[string]string{
	"create": "create", "get": "read", "list": "read", "watch": "read", "update": "write", "patch": "write",
	"delete": "delete", "deletecollection": "delete",
}

// tokens are the users of tokens. As a flag, one is TOKEN,NAMESPACE or TOKEN,NAMESPACE,ACTION+ACTION.
type tokens map[string]user.Info

func (tokens) String() string { return "" }

// Set implements flag.Value.
func (t tokens) Set(s string) error {
	parts := strings.Split(s, ",")
	allowed := allActions
	switch len(parts) {
	case 2:
	case 3:
		allowed = strings.Split(parts[2], "+")
	default:
		return errors.New("a token is TOKEN,NAMESPACE or TOKEN,NAMESPACE,ACTION+ACTION")
	}
	for _, action := range allowed {
		if !slices.Contains(allActions, action) {
			return fmt.Errorf("there is no action %q", action)
		}
	}
	t[parts[0]] = &user.DefaultInfo{
		Name: userName, Groups: []string{user.AllAuthenticated},
		Extra: map[string][]string{extraNamespace: {parts[1]}, extraActions: allowed},
	}
	return nil
}

type userKey struct{}

// signedIn is what Grafana's web server has before the API server: it answers in a form of its own.
func (t tokens) signedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		u := t[token]
		switch {
		case !isBearer:
			unauthorized(w, `{"message":"Unauthorized"}`)
		case u == nil:
			unauthorized(w, `{"extra":null,"message":"Invalid API key","messageId":"api-key.invalid","statusCode":401,"traceID":""}`)
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, u)))
		}
	})
}

func unauthorized(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, body)
}

// authenticate hands the user on to the framework.
func authenticate(r *http.Request) (*authenticator.Response, bool, error) {
	u, ok := r.Context().Value(userKey{}).(user.Info)
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: u}, true, nil
}

// authorize is what Grafana asks within the framework: whether the namespace is one, is that of the token, and whether the token has the action.
func authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if !a.IsResourceRequest() {
		return authorizer.DecisionAllow, "", nil
	}
	if err := checkNamespace(a.GetNamespace()); err != nil {
		return authorizer.DecisionDeny, "invalid namespace", err
	}
	extra := a.GetUser().GetExtra()
	switch {
	case !slices.Contains(extra[extraNamespace], a.GetNamespace()):
		return authorizer.DecisionDeny, "invalid namespace", nil
	case a.GetAPIGroup() == groupVersion.Group && !slices.Contains(extra[extraActions], actions[a.GetVerb()]):
		return authorizer.DecisionDeny, "unauthorized request", nil
	}
	return authorizer.DecisionAllow, "", nil
}

// checkNamespace returns what is wrong with a namespace that can be of no org and no stack.
func checkNamespace(namespace string) error {
	if id, isStack := strings.CutPrefix(namespace, "stacks-"); isStack {
		if _, err := strconv.ParseInt(id, 10, 64); err != nil {
			return errors.New("invalid stack id")
		}
	}
	if id, isOrg := strings.CutPrefix(namespace, "org-"); isOrg {
		switch n, err := strconv.ParseInt(id, 10, 64); {
		case err != nil:
			return errors.New("invalid org id")
		case n == 1:
			return errors.New("use default rather than org-1")
		}
	}
	return nil
}
