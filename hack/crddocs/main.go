// Crddocs writes the reference of the kinds, as Markdown, from their CustomResourceDefinitions. Its argument is their directory.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: crddocs DIRECTORY")
	}
	files, err := filepath.Glob(filepath.Join(args[0], "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no definitions in %s: %w", args[0], err)
	}
	kinds := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(content, crd); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		kinds[crd.Spec.Names.Kind] = crd
	}
	var out bytes.Buffer
	out.WriteString("# Reference of the kinds\n\n<!-- Made from the types by `make manifests`. -->\n\n" +
		"`kubectl explain KIND.spec` shows the same. Every bound is enforced by the API server.\n")
	for _, kind := range slices.Backward(slices.Sorted(maps.Keys(kinds))) { // the kind of most people first
		write(&out, kinds[kind])
	}
	_, err = os.Stdout.Write(out.Bytes())
	return err
}

func write(out *bytes.Buffer, crd *apiextensionsv1.CustomResourceDefinition) {
	version := crd.Spec.Versions[0]
	names := crd.Spec.Names
	fmt.Fprintf(out, "\n## %s\n\n`%s/%s`, %s; short name `%s`.\n\n", names.Kind, crd.Spec.Group, version.Name,
		map[apiextensionsv1.ResourceScope]string{"Namespaced": "in a namespace", "Cluster": "of the whole cluster"}[crd.Spec.Scope], strings.Join(names.ShortNames, "`, `"))
	schema := version.Schema.OpenAPIV3Schema
	fmt.Fprintf(out, "%s\n", prose(schema.Description))
	for _, part := range []string{"spec", "status"} {
		properties := schema.Properties[part]
		fmt.Fprintf(out, "\n### %s of %s\n\n%s\n\n| field | type | meaning |\n|---|---|---|\n", strings.ToUpper(part[:1])+part[1:], names.Kind, prose(properties.Description))
		fields(out, part+".", properties, part == "spec")
	}
}

// fields writes a row for each field, those of a field below it.
func fields(out *bytes.Buffer, prefix string, of apiextensionsv1.JSONSchemaProps, wanted bool) {
	for _, name := range slices.Sorted(maps.Keys(of.Properties)) {
		field := of.Properties[name]
		meaning := []string{prose(field.Description)}
		if wanted && slices.Contains(of.Required, name) && field.Default == nil {
			meaning = append(meaning, "Required.")
		}
		meaning = append(meaning, bounds(field)...)
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", prefix+name, kind(field), strings.ReplaceAll(strings.Join(meaning, " "), "|", `\|`))
		switch {
		case field.Items != nil && field.Items.Schema != nil:
			if name != "conditions" && name != "matchExpressions" { // Kubernetes' own
				fields(out, prefix+name+"[].", *field.Items.Schema, wanted)
			}
		case name != "selector":
			fields(out, prefix+name+".", field, wanted)
		}
	}
}

func kind(field apiextensionsv1.JSONSchemaProps) string {
	switch {
	case field.Items != nil && field.Items.Schema != nil:
		return "list of " + kind(*field.Items.Schema)
	case field.Format != "":
		return field.Type + " (" + field.Format + ")"
	default:
		return field.Type
	}
}

// bounds returns what the schema asks of a field and its description need not say, in sentences.
func bounds(field apiextensionsv1.JSONSchemaProps) []string {
	var found []string
	if len(field.Enum) > 0 {
		var values []string
		for _, value := range field.Enum {
			values = append(values, "`"+strings.Trim(string(value.Raw), `"`)+"`")
		}
		found = append(found, "One of "+strings.Join(values, ", ")+".")
	}
	for _, rule := range field.XValidations {
		if rule.Message != "" {
			found = append(found, "*"+strings.TrimSuffix(rule.Message, ".")+".*")
		}
	}
	return found
}

// prose returns a description on one line, as a sentence, and without its example.
func prose(text string) string {
	text, _, _ = strings.Cut(strings.Join(strings.Fields(text), " "), " Example: ")
	if text != "" && !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}
