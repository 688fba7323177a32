package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// Bounds of one rendering. The work is counted in bytes, so that the same template and Secrets always have the same result.
const (
	maxIterations = 10_000
	maxWork       = 16 << 20 // what all calls read and make, and the steps of all iterations
	maxNameWork   = 64 << 10 // the same of a name: a set renders 1,000
	callCost      = 64
	stepCost      = 16
)

// templateName begins the position in the errors of text/template.
const templateName = "value"

// fieldFunction and iterationFunction are functions that no template can name: they are put into its tree.
const (
	fieldFunction     = "_field"
	rangedFunction    = "_ranged"
	iterationFunction = "_iteration"
)

// rendering is the state of one.
type rendering struct {
	aliases    map[uintptr]string  // of the Secrets, by the address of their map: a variable that holds one has the same
	root       uintptr             // the address of the map of all
	unknown    string              // what is wrong with a word that it does not have
	words      map[string]bool     // that the text has as fields or strings; a key that is none of them may be a value
	called     map[string]bool     // the functions that the text names
	other      *parse.TemplateNode // which is not supported
	iterations int
	work       int
	maxWork    int
}

// turn admits one rendering at a time, so that they bound the memory of the process, too. slots admits few whose Secrets are in memory.
var turn, slots = make(chan struct{}, 1), make(chan struct{}, 4)

// Enter waits until the Secrets of one more template may be read, before Render. The caller must call leave when it no longer needs them. The
// error is that of the context.
func Enter(ctx context.Context) (leave func(), err error) { return enter(ctx, slots) }

func enter(ctx context.Context, slots chan struct{}) (leave func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Render returns what the text makes of the Secrets, which are named by their aliases. It depends on nothing else. The error is a
// *MissingKeyError, a *TemplateError, a TooLargeError where the result has more than MaxBytes, or that of the context.
func Render(ctx context.Context, text string, secrets map[string]map[string][]byte) (result []byte, err error) {
	r := &rendering{aliases: map[uintptr]string{}, unknown: "the alias of no Secret in spec.valueFrom.template.secretRefs", maxWork: maxWork}
	data := make(map[string]any, len(secrets))
	for alias, content := range secrets {
		keys := make(map[string]any, len(content))
		for key, value := range content {
			keys[key] = string(value)
		}
		data[alias] = keys
		r.aliases[addressOf(keys)] = alias
	}
	return r.render(ctx, text, data)
}

// RenderName returns what the text of a nameTemplate makes of words such as Secret and Key. The error is one of Render.
func RenderName(ctx context.Context, text string, words map[string]string) (string, error) {
	r := &rendering{unknown: "none of " + strings.Join(slices.Sorted(maps.Keys(words)), ", "), maxWork: maxNameWork}
	data := make(map[string]any, len(words))
	for word, content := range words {
		data[word] = content
	}
	name, err := r.render(ctx, text, data)
	return string(name), err
}

// render executes the text with data.
func (r *rendering) render(ctx context.Context, text string, data map[string]any) (result []byte, err error) {
	leave, err := enter(ctx, turn)
	if err != nil {
		return nil, err
	}
	defer func() {
		leave()
		if recover() != nil { // text/template panics where Go does, and its words may have a value
			result, err = nil, &TemplateError{Problem: "fails"}
		}
	}()
	r.words, r.called, r.root = map[string]bool{}, map[string]bool{}, addressOf(data)
	tree, err := r.parse(text)
	if err != nil {
		return nil, err
	}
	t, err := template.New(templateName).Funcs(r.functions()).AddParseTree(templateName, tree)
	if err != nil {
		return nil, &TemplateError{Problem: "cannot be parsed"}
	}
	out := &output{}
	if err := t.Execute(out, data); err != nil {
		return nil, explain(err)
	}
	return out.Bytes(), nil
}

func addressOf(m map[string]any) uintptr { return reflect.ValueOf(m).Pointer() }

// parse returns the tree of the text, with our own functions in it.
func (r *rendering) parse(text string) (*parse.Tree, error) {
	trees := map[string]*parse.Tree{}
	tree, err := parse.New(templateName).Parse(text, "", "", trees, known)
	if err != nil {
		return nil, explain(err)
	}
	if len(trees) != 1 || trees[templateName] != tree {
		return nil, &TemplateError{Problem: "has a define or block, which is not supported"}
	}
	if r.rewrite(tree.Root); r.other != nil {
		return nil, &TemplateError{Line: r.other.Line, Problem: "calls another template, which is not supported"}
	}
	return tree, nil
}

// rewrite makes every field access a call of ours, which tells a missing key, and puts two calls into every range, which count what it begins
// with, and its iterations and their steps. It returns the number of nodes, without those of such bodies.
func (r *rendering) rewrite(nodes ...parse.Node) (steps int) {
	for _, node := range nodes {
		steps++
		switch n := node.(type) {
		case *parse.ListNode:
			if n != nil {
				steps += r.rewrite(n.Nodes...)
			}
		case *parse.PipeNode:
			for _, command := range n.Cmds {
				steps += r.rewrite(command.Args...)
				for i, arg := range command.Args {
					command.Args[i] = r.withoutFields(arg)
				}
			}
		case *parse.ActionNode:
			steps += r.rewrite(n.Pipe)
		case *parse.IfNode:
			steps += r.rewrite(n.Pipe, n.List, n.ElseList)
		case *parse.WithNode:
			steps += r.rewrite(n.Pipe, n.List, n.ElseList)
		case *parse.RangeNode:
			count := callNode(iterationFunction, n.Pos, numberNode(r.rewrite(n.List), n.Pos))
			n.List.Nodes = append([]parse.Node{count}, n.List.Nodes...)
			steps += r.rewrite(n.Pipe, n.ElseList)
			n.Pipe.Cmds = append(n.Pipe.Cmds, callNode(rangedFunction, n.Pos).Pipe.Cmds...)
		case *parse.ChainNode:
			steps += r.rewrite(n.Node)
		case *parse.IdentifierNode:
			r.called[n.Ident] = true
		case *parse.StringNode:
			r.words[n.Text] = true
		case *parse.TemplateNode:
			r.other = n
		}
	}
	return steps
}

// withoutFields returns the node, or the call that reads its fields.
func (r *rendering) withoutFields(node parse.Node) parse.Node {
	var fields []string
	var of parse.Node
	switch n := node.(type) {
	case *parse.FieldNode:
		of, fields = &parse.DotNode{NodeType: parse.NodeDot, Pos: n.Pos}, n.Ident
	case *parse.VariableNode:
		of, fields = n, n.Ident[1:]
		n.Ident = n.Ident[:1]
	case *parse.ChainNode:
		of, fields = n.Node, n.Field
	}
	if len(fields) == 0 {
		return node
	}
	args := []parse.Node{of}
	for _, field := range fields {
		r.words[field] = true
		args = append(args, &parse.StringNode{NodeType: parse.NodeString, Pos: node.Position(), Quoted: strconv.Quote(field), Text: field})
	}
	return callNode(fieldFunction, node.Position(), args...).Pipe
}

// callNode returns the action that calls a function.
func callNode(name string, pos parse.Pos, args ...parse.Node) *parse.ActionNode {
	command := &parse.CommandNode{NodeType: parse.NodeCommand, Pos: pos}
	command.Args = append([]parse.Node{parse.NewIdentifier(name).SetPos(pos)}, args...)
	return &parse.ActionNode{
		NodeType: parse.NodeAction, Pos: pos,
		Pipe: &parse.PipeNode{NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{command}},
	}
}

func numberNode(n int, pos parse.Pos) parse.Node {
	return &parse.NumberNode{NodeType: parse.NodeNumber, Pos: pos, IsInt: true, Int64: int64(n), Text: strconv.Itoa(n)}
}

// output is what a template writes, within bounds.
type output struct{ bytes.Buffer }

// Write refuses what would be more than MaxBytes.
func (o *output) Write(p []byte) (int, error) {
	if o.Len()+len(p) > MaxBytes {
		return 0, TooLargeError{}
	}
	return o.Buffer.Write(p)
}

var (
	position  = regexp.MustCompile(`^template: ` + templateName + `:(\d+)(?::(\d+))?:`)
	undefined = regexp.MustCompile(`: function "([A-Za-z0-9_]{1,63})" not defined$`)
	quoted    = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`|'[^']*'")
)

// explain returns an error with the position of that of text/template, and our own words.
func explain(err error) error {
	if errors.As(err, new(TooLargeError)) {
		return TooLargeError{}
	}
	line, column := 0, 0
	if found := position.FindStringSubmatch(err.Error()); found != nil {
		line, _ = strconv.Atoi(found[1])
		if column, _ = strconv.Atoi(found[2]); found[2] != "" {
			column++ // text/template begins with 0
		}
	}
	if missing, ok := errors.AsType[*MissingKeyError](err); ok {
		return &MissingKeyError{missing.Alias, missing.Key, line, column}
	}
	problem := "does what is not possible with these values"
	if failed, ok := errors.AsType[*TemplateError](err); ok {
		problem = failed.Problem
	} else if !errors.As(err, new(template.ExecError)) {
		problem = parseProblem(err.Error())
	}
	return &TemplateError{line, column, problem}
}

// parseProblem returns the words of the parser without those of the text.
func parseProblem(message string) string {
	if found := undefined.FindStringSubmatch(message); found != nil {
		return fmt.Sprintf("calls function %q, which does not exist or is not allowed", found[1])
	}
	words := quoted.ReplaceAllString(position.ReplaceAllString(message, ""), "...")
	return fmt.Sprintf("cannot be parsed: %.100s", strings.Join(strings.Fields(words), " "))
}
