package main

import (
	"fmt"
	"mime"
	"net/http"
	"strings"
	"testing"
)

// seen is what the fakes must agree on. Words of messages are not part of it: the client reads only those that namespacePattern names.
type seen struct {
	code              int
	mediaType, reason string
	kind              string // of the details
}

func (s seen) String() string {
	return fmt.Sprintf("HTTP %d %s %s %s", s.code, s.mediaType, s.reason, s.kind)
}

// TestFakesAgree sends the same requests to both fakes. Where they differ the facts decide, and else the framework.
func TestFakesAgree(t *testing.T) {
	both := []settings{small(t), framework(t, "default")}
	named := func(name, more string) string {
		return `{"metadata":{"name":"` + name + `"` + more + `},"spec":{"description":"x","value":"v"}}`
	}
	spec := func(spec string) string { return `{"metadata":{"name":"new"},"spec":` + spec + `}` }
	yaml := http.Header{"Content-Type": {"application/yaml"}}
	for _, s := range both {
		if a, err := s.send(t.Context(), request{method: "POST", body: named("there", "")}); err != nil || a.code != http.StatusCreated {
			t.Fatal(a, err)
		}
	}
	for name, q := range map[string]request{
		"no token":                       {method: "GET", token: noToken},
		"a wrong token":                  {method: "GET", token: "x"},
		"another API version":            {method: "GET", at: strings.Replace(both[0].collection(), "v1beta1", "v9", 1)},
		"another API group":              {method: "GET", at: strings.Replace(both[0].collection(), "secret.", "other.", 1)},
		"another resource":               {method: "GET", at: strings.TrimSuffix(both[0].collection(), "securevalues") + "others"},
		"another namespace":              {method: "GET", at: strings.Replace(both[0].collection(), "default", "org-2", 1)},
		"org-1":                          {method: "GET", at: strings.Replace(both[0].collection(), "default", "org-1", 1)},
		"org-x":                          {method: "GET", at: strings.Replace(both[0].collection(), "default", "org-x", 1)},
		"stacks-abc":                     {method: "GET", at: strings.Replace(both[0].collection(), "default", "stacks-abc", 1)},
		"LIST":                           {method: "GET"},
		"LIST with limit":                {method: "GET", path: "?limit=1"},
		"LIST by label":                  {method: "GET", path: "?labelSelector=a%3Db"},
		"LIST by decrypter":              {method: "GET", path: "?fieldSelector=spec.decrypter%3Da"},
		"LIST by another field":          {method: "GET", path: "?fieldSelector=spec.description%3Da"},
		"LIST by no selector":            {method: "GET", path: "?labelSelector=!!"},
		"watch":                          {method: "GET", path: "?watch=true"},
		"watch=1":                        {method: "GET", path: "?watch=1"},
		"GET":                            {method: "GET", path: "/there"},
		"GET of none":                    {method: "GET", path: "/none"},
		"GET of a name that is none":     {method: "GET", path: "/No_Name"},
		"GET of a subresource":           {method: "GET", path: "/there/status"},
		"HEAD":                           {method: "HEAD", path: "/there"},
		"GET as a token that only reads": {method: "GET", path: "/there", token: readerToken},
		"POST as one":                    {method: "POST", body: "{", token: readerToken},
		"PUT as one":                     {method: "PUT", path: "/none", body: "{", token: readerToken},
		"DELETE as one":                  {method: "DELETE", path: "/none", token: readerToken},
		"POST":                           {method: "POST", body: named("made", "")},
		"POST without a name":            {method: "POST", body: `{"spec":{"description":"x","value":"v"}}`},
		"POST of a name that is taken":   {method: "POST", body: named("there", "")},
		"POST, taken and invalid":        {method: "POST", body: `{"metadata":{"name":"there"},"spec":{"value":"v"}}`},
		"POST to a name":                 {method: "POST", path: "/there", body: named("there", "")},
		"POST of nothing":                {method: "POST"},
		"POST of no JSON":                {method: "POST", body: "{"},
		"POST of YAML":                   {method: "POST", body: "metadata: {name: yaml}\nspec: {description: x, value: v}\n", header: yaml},
		"POST of another media type":     {method: "POST", body: named("new", ""), header: http.Header{"Content-Type": {"text/plain"}}},
		"POST without a media type":      {method: "POST", body: named("untyped", ""), header: http.Header{"Content-Type": nil}},
		"POST of another apiVersion":     {method: "POST", body: `{"apiVersion":"secret.grafana.app/v9"}`},
		"POST of another kind":           {method: "POST", body: `{"apiVersion":"secret.grafana.app/v1beta1","kind":"Other"}`},
		"POST to another namespace":      {method: "POST", body: named("new", `,"namespace":"org-2"`)},
		"POST of a field of none":        {method: "POST", body: named("unknown", `,"no":"field"`)},
		"POST of a wrong type":           {method: "POST", body: spec(`{"description":1,"value":"v"}`)},
		"POST of a byte too much":        {method: "POST", body: strings.Repeat(" ", 16<<20+1)},
		"POST, no description":           {method: "POST", body: spec(`{"value":"v"}`)},
		"POST, description of 26":        {method: "POST", body: spec(`{"description":"abcdefghijklmnopqrstuvwxyz","value":"v"}`)},
		"POST, no value":                 {method: "POST", body: spec(`{"description":"x"}`)},
		"POST, empty value":              {method: "POST", body: spec(`{"description":"x","value":""}`)},
		"POST, value and reference":      {method: "POST", body: spec(`{"description":"x","value":"v","ref":"r"}`)},
		"POST, reference":                {method: "POST", body: spec(`{"description":"x","ref":"r"}`)},
		"POST, keeper":                   {method: "POST", body: spec(`{"description":"x","value":"v","keeper":"k"}`)},
		"POST, decrypter":                {method: "POST", body: spec(`{"description":"x","value":"v","decrypters":["a/b"]}`)},
		"POST, folder":                   {method: "POST", body: named("new", `,"annotations":{"grafana.app/folder":"f"}`)},
		"POST, two owners": {method: "POST", body: named("new", `,"ownerReferences":[{"apiVersion":"g/v","kind":"K","name":"a","uid":"a"},`+
			`{"apiVersion":"g/v","kind":"K","name":"b","uid":"b"}]`)},
		"POST, owner without a group": {method: "POST", body: named("new", `,"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"a","uid":"a"}]`)},
		"POST, bad name":              {method: "POST", body: named("New", "")},
		"PUT":                         {method: "PUT", path: "/there", body: named("there", "")},
		"PUT with a resourceVersion":  {method: "PUT", path: "/there", body: named("there", `,"resourceVersion":"1"`)},
		"PUT without a value":         {method: "PUT", path: "/there", body: `{"metadata":{"name":"there"},"spec":{"description":"x"}}`},
		"PUT of an empty value":       {method: "PUT", path: "/there", body: `{"metadata":{"name":"there"},"spec":{"description":"x","value":""}}`},
		"PUT of a reference":          {method: "PUT", path: "/there", body: `{"metadata":{"name":"there"},"spec":{"description":"x","ref":"r"}}`},
		"PUT, no description":         {method: "PUT", path: "/there", body: `{"metadata":{"name":"there"},"spec":{"value":"v"}}`},
		"PUT without a name":          {method: "PUT", path: "/there", body: `{"spec":{"description":"x","value":"v"}}`},
		"PUT of another name":         {method: "PUT", path: "/there", body: named("other", "")},
		"PUT of none":                 {method: "PUT", path: "/none", body: named("none", "")},
		"PUT of none, no JSON":        {method: "PUT", path: "/none", body: "{"},
		"PUT of none, invalid":        {method: "PUT", path: "/none", body: `{"metadata":{"name":"none"},"spec":{}}`},
		"PUT to all":                  {method: "PUT", body: named("there", "")},
		"DELETE of none":              {method: "DELETE", path: "/none"},
		"DELETE":                      {method: "DELETE", path: "/made"},
		"DELETE of all":               {method: "DELETE"},
	} {
		t.Run(name, func(t *testing.T) {
			var found []seen
			for _, s := range both {
				a, err := s.send(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				mediaType, _, _ := mime.ParseMediaType(a.contentType)
				found = append(found, seen{a.code, mediaType, a.status.Reason, a.status.Details.Kind})
			}
			if found[0] != found[1] {
				t.Errorf("small fake: %s\nframework:  %s", found[0], found[1])
			}
		})
	}
}
