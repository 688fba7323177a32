package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// outcome is what a rule found.
type outcome string

const (
	expected    outcome = "as expected"
	differs     outcome = "differs"
	notTestable outcome = "not testable"
)

// rule is something that the project assumes of Grafana.
type rule struct {
	text string
	// relied says that the operator relies on it. A rule on which it does not tells how a Grafana behaves, and fails no run.
	relied bool
	check  func(context.Context, *run) (detail string, err error)
}

// result is a rule with what was found.
type result struct {
	rule

	outcome outcome
	detail  string
}

// untestable is the error of a rule that this Grafana, or these settings, do not let us test.
type untestable string

func (e untestable) Error() string { return string(e) }

// timeout bounds one rule.
const timeout = time.Minute

// runRules cleans up, checks the rules, and cleans up again. With the context ends the run, and not the cleaning. The error is that of what could
// not be cleaned up.
func (r *run) runRules(ctx context.Context, rules []rule) ([]result, error) {
	if err := r.cleanUp(ctx); err != nil {
		return nil, err
	}
	var results []result
	for _, rule := range rules {
		results = append(results, r.checkRule(ctx, rule))
	}
	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := r.cleanUp(cleaning); err != nil {
		return results, fmt.Errorf("remove what begins with %s: %w", prefix, err)
	}
	return results, nil
}

func (r *run) checkRule(ctx context.Context, rule rule) result {
	if ctx.Err() != nil {
		return result{rule, notTestable, "the run was interrupted"}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	detail, err := rule.check(ctx, r)
	if reason, ok := errors.AsType[untestable](err); ok {
		return result{rule, notTestable, string(reason)}
	}
	if err != nil {
		return result{rule, differs, err.Error()}
	}
	return result{rule, expected, detail}
}

func allRules() []rule {
	var all []rule
	for _, group := range [][]rule{lifeRules, writeRules, boundRules, listRules, refusalRules} {
		all = append(all, group...)
	}
	return all
}
