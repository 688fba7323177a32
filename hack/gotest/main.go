// Gotest runs go test, with the race detector where that works, and closes with one line of how many tests passed, failed
// and were skipped. Its arguments are those of go test.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == nil {
		return
	}
	stop()
	if !errors.Is(err, errFailed) { // the report says it
		fmt.Fprintln(os.Stderr, "error: "+err.Error())
	}
	os.Exit(1)
}

var errFailed = errors.New("tests failed")

func run(ctx context.Context, args []string) error {
	args = append([]string{"test", "-json"}, args...)
	if reason := raceMissing(ctx); reason == "" {
		args = append(args[:2:2], append([]string{"-race"}, args[2:]...)...)
	} else if os.Getenv("REQUIRE_RACE") == "1" {
		return errors.New("REQUIRE_RACE=1, but no race detector: " + reason)
	} else {
		fmt.Println("Without the race detector: " + reason + ".")
	}

	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	sum, readErr := summarize(out, os.Stdout)
	err = cmd.Wait()
	fmt.Println(sum)
	switch {
	case readErr != nil:
		return readErr
	case sum.failed > 0:
		return errFailed
	case err != nil:
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}

// raceMissing says why the race detector cannot be used here, and "" if it can.
func raceMissing(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "go", "list", "-race", "unsafe").CombinedOutput()
	if err != nil { // it knows the platforms, and CGO_ENABLED
		return strings.TrimPrefix(strings.TrimSpace(string(out)), "go: ")
	}
	compiler, err := exec.CommandContext(ctx, "go", "env", "CC").Output()
	if err != nil {
		return err.Error()
	}
	words := strings.Fields(string(compiler))
	if len(words) == 0 {
		return "go env CC is empty"
	}
	if _, err := exec.LookPath(words[0]); err != nil {
		return "no C compiler " + words[0]
	}
	return ""
}
