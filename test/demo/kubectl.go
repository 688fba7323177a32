package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed manifests
var manifests embed.FS

// writeManifests writes the manifests into the directory in which kubectl runs.
func (d *demo) writeManifests(url string) error {
	return fs.WalkDir(manifests, "manifests", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := manifests.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(d.dir, entry.Name()), []byte(strings.ReplaceAll(string(content), "GRAFANA-URL", url)), 0o600)
	})
}

func secretCommand(name, key, value string) []string {
	return []string{"create", "secret", "generic", name, "--from-literal=" + key + "=" + value}
}

func patchSecret(key, value string) []string {
	return []string{"patch", "secret", "demo", "-p", `{"stringData":{"` + key + `":"` + value + `"}}`}
}

func patch(kind, name, body string) []string {
	return []string{"patch", kind, name, "--type=merge", "-p", body}
}

func ready(object string) []string {
	return []string{"wait", "--for=condition=Ready", object, timeoutFlag}
}

func notReady(object string) []string {
	return []string{"wait", "--for=condition=Ready=false", object, timeoutFlag}
}

// apply prints a manifest and applies it.
func (d *demo) apply(ctx context.Context, file string) error {
	content, err := os.ReadFile(filepath.Join(d.dir, file))
	if err != nil {
		return err
	}
	d.print("\n$ cat " + file + "\n" + string(content))
	return d.each(ctx, []string{"apply", "-f", file})
}

// each runs kubectl commands, and prints them and their output.
func (d *demo) each(ctx context.Context, commands ...[]string) error {
	for _, args := range commands {
		d.print("\n$ kubectl " + shellWords(args) + "\n")
		out, err := d.kubectl(ctx, args...)
		d.print(out)
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.plane.KubectlPath(), append([]string{"--kubeconfig", d.plane.KubeconfigPath()}, args...)...)
	cmd.Dir = d.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C must not reach it before the demo, which would take it for a failure
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGINT { // as it was about to have a group of its own
			return "", errInterrupted
		}
	}
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w", shellWords(args), err)
	}
	return string(out), nil
}

const columns = 100

func (d *demo) title(text string) { d.print("\n== " + text + " ==\n") }

// say prints a sentence of the demo itself, as a comment in a shell.
func (d *demo) say(format string, args ...any) { d.print("\n# " + fmt.Sprintf(format, args...) + "\n") }

// print prints whole lines.
func (d *demo) print(text string) {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, _ = io.WriteString(d.out, wrap(text)) // as with fmt.Print
}

// wrap breaks lines of more than the columns at a space, if they have one.
func wrap(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		var done strings.Builder
		for len([]rune(line)) > columns {
			at := strings.LastIndex(string([]rune(line)[:columns+1]), " ")
			if at <= 0 {
				break
			}
			done.WriteString(line[:at] + "\n")
			line = line[at+1:]
		}
		lines[i] = done.String() + line
	}
	return strings.Join(lines, "\n")
}

// shellWords quotes arguments as a shell wants them.
func shellWords(args []string) string {
	words := make([]string, 0, len(args))
	for _, arg := range args {
		if strings.ContainsAny(arg, ` "{}`) {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
