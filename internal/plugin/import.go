package plugin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/securevalues-io/grafana-secure-value-operator/api/v1alpha1"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/controller/connection"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/ownership"
)

// What stands for the source until somebody fills it in. It is a valid name, so that the manifests can be applied as they are.
const (
	unknownSecret = "fill-in-the-secret" // no credentials, but where a name goes
	unknownKey    = "fill-in-the-key"
	sourceKey     = "value" // of the Secrets of --source-prefix
)

// importer makes manifests for the values of one connection.
type importer struct {
	conn      v1alpha1.Connection
	namespace string
	selector  string // of labels in Grafana; empty is all
	prefix    string // of the names of Secrets; empty is to be filled in
	names     []string
	objects   []v1alpha1.GrafanaSecureValue // of the namespace
}

// imported is a manifest, with remarks.
type imported struct {
	object  *v1alpha1.GrafanaSecureValue
	remarks []string
}

func (t *tool) importCommand() *cobra.Command {
	name, im := "", &importer{}
	cmd := &cobra.Command{
		Use:   "import --connection NAME [NAME...]",
		Short: "Print GrafanaSecureValues for values that Grafana has and nobody owns",
		Long: "Print GrafanaSecureValues for values that Grafana has and nobody owns: all of a connection, those with a label, or the named ones.\n\n" +
			"They are suspended, adopt the value, and retain it when they are deleted. Fill in the source and remove spec.suspend: then one write\n" +
			"takes each value over. Grafana shows no value, so each value must be in its Secret before.",
		RunE: func(cmd *cobra.Command, names []string) error {
			if name == "" {
				return errors.New("name a connection with --connection: `kubectl get gconn,cgconn -A` lists the connections")
			}
			im.names = names
			return t.importValues(cmd.Context(), name, im)
		},
	}
	t.addOutput(cmd, "yaml", "json")
	t.addConnection(cmd, &name, "Connection whose values to import.")
	cmd.Flags().StringVarP(&im.selector, "selector", "l", "", "Label selector of the values in Grafana.")
	cmd.Flags().StringVar(&im.prefix, "source-prefix", "", "The value of NAME is in key \""+sourceKey+"\" of the Secret of this prefix and NAME. By default the source is to be filled in.")
	return cmd
}

func (t *tool) importValues(ctx context.Context, name string, im *importer) error {
	c, err := t.cluster()
	if err != nil {
		return err
	}
	if im.conn, err = c.connection(ctx, name); err != nil {
		return err
	}
	im.namespace = c.namespace
	if im.objects, err = c.secureValues(ctx, c.namespace, ""); err != nil {
		return err
	}
	client, err := c.caller().Dial(ctx, im.conn)
	if err != nil {
		return explained(im.conn, err)
	}
	progress := t.progress("Reading from Grafana")
	var found []*grafana.SecureValue
	read := 0
	err = client.List(ctx, im.selector, func(sv *grafana.SecureValue) {
		read++
		progress.show(read)
		if im.wants(sv) {
			found = append(found, sv)
		}
	})
	progress.end()
	if err != nil {
		return explained(im.conn, err)
	}
	slices.SortFunc(found, func(a, b *grafana.SecureValue) int { return cmp.Compare(a.Name, b.Name) })
	var manifests []imported
	for _, sv := range found {
		manifest, why := im.manifest(sv)
		if why != "" {
			fmt.Fprintf(t.ErrOut, "Left out: %s: %s\n", plain(sv.Name), why)
			continue
		}
		manifests = append(manifests, manifest)
	}
	if len(manifests) == 0 {
		fmt.Fprintln(t.ErrOut, "Nothing to import.")
		return nil
	}
	return t.printImport(manifests)
}

// wants reports whether a value is to be imported: nobody owns it, no tool manages it, and no object of the namespace names it.
func (im *importer) wants(sv *grafana.SecureValue) bool {
	if (ownership.Labels{}).OwnerOf(sv) != ownership.Nobody || len(im.names) > 0 && !slices.Contains(im.names, sv.Name) {
		return false
	}
	id := connection.IDFor(im.conn)
	return !slices.ContainsFunc(im.objects, func(o v1alpha1.GrafanaSecureValue) bool {
		return ownership.Uses(&o, sv.Name) && slices.Contains(ownership.Connections(&o), id)
	})
}

// manifest returns the object for a value, or why there is none.
func (im *importer) manifest(sv *grafana.SecureValue) (manifest imported, why string) {
	source := v1alpha1.SecretKeyReference{Name: unknownSecret, Key: unknownKey}
	if im.prefix != "" {
		source = v1alpha1.SecretKeyReference{Name: im.prefix + sv.Name, Key: sourceKey}
	}
	switch {
	case !isName(sv.Name):
		return manifest, "no object of Kubernetes can have this name."
	case !isName(source.Name):
		return manifest, fmt.Sprintf("no Secret can have the name %q. Use another --source-prefix.", source.Name)
	case !areDecrypters(sv.Decrypters):
		return manifest, "its decrypters cannot be written in a GrafanaSecureValue, and adoption would remove them."
	case slices.ContainsFunc(im.objects, func(o v1alpha1.GrafanaSecureValue) bool { return o.Name == sv.Name }):
		return manifest, "a GrafanaSecureValue of this name exists, and names another secure value."
	}
	o := &v1alpha1.GrafanaSecureValue{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "GrafanaSecureValue"},
		ObjectMeta: metav1.ObjectMeta{Name: sv.Name, Namespace: im.namespace},
		Spec: v1alpha1.GrafanaSecureValueSpec{
			ConnectionRef: v1alpha1.ConnectionReference{Kind: im.conn.ConnectionKind(), Name: im.conn.GetName()},
			ValueFrom:     v1alpha1.ValueSource{SecretKeyRef: source},
			SecureValueSettings: v1alpha1.SecureValueSettings{
				Decrypters:     sv.Decrypters,
				AdoptionPolicy: v1alpha1.AdoptionPolicyAdopt,
				DeletionPolicy: v1alpha1.DeletionPolicyRetain,
				Suspend:        true,
			},
		},
	}
	manifest = imported{object: o}
	switch n := utf8.RuneCountInString(sv.Description); {
	case n == 0:
	case n > grafana.MaxDescriptionRunes:
		manifest.remarks = append(manifest.remarks, fmt.Sprintf("The description has %d characters, and spec.description at most %d. It is left out: adoption keeps the text in Grafana. If Grafana refuses that, set spec.description.", n, grafana.MaxDescriptionRunes))
	case strings.ContainsFunc(sv.Description, unicode.IsControl):
		manifest.remarks = append(manifest.remarks, "The description has control characters. It is left out: adoption keeps the text in Grafana.")
	default:
		o.Spec.Description = sv.Description
	}
	if len(sv.Decrypters) == 0 {
		manifest.remarks = append(manifest.remarks, "It has no decrypters: no service can read it.")
	}
	return manifest, ""
}

// areDecrypters reports whether decrypters can be written in a spec, each once.
func areDecrypters(names []string) bool {
	for i, name := range names {
		if name == "" || validation.IsValidLabelValue(name) != nil || slices.Contains(names[:i], name) {
			return false
		}
	}
	return len(names) <= grafana.MaxDecrypters
}

// printImport prints manifests as YAML with remarks, or as a List in JSON.
func (t *tool) printImport(manifests []imported) error {
	var out bytes.Buffer
	if t.output == "json" {
		items := make([]*v1alpha1.GrafanaSecureValue, len(manifests))
		for i, m := range manifests {
			items[i] = m.object
			for _, remark := range m.remarks {
				fmt.Fprintf(t.ErrOut, "%s: %s\n", m.object.Name, remark)
			}
		}
		content, err := json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List", "items": items}, "", "    ")
		if err != nil {
			return err
		}
		out.Write(append(content, '\n'))
	} else {
		fmt.Fprintf(&out, "# %s. Fill in each source, and remove suspend: then one write takes each value over.\n", plural(len(manifests), "secure value"))
		for _, m := range manifests {
			content, err := yaml.Marshal(m.object)
			if err != nil {
				return err
			}
			out.WriteString("---\n")
			for _, remark := range m.remarks {
				out.WriteString("# " + remark + "\n")
			}
			out.Write(content)
		}
	}
	_, err := t.Out.Write(out.Bytes())
	return err
}
