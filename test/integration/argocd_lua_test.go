package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// argoCD is where what Argo CD has to know is kept; customizations is laid out as resource_customizations of Argo CD itself.
var (
	argoCD         = filepath.Join("..", "..", "config", "argocd")
	customizations = filepath.Join(argoCD, "resource_customizations", "grafana.securevalues.io")
)

// script is a Lua program that runs as in Argo CD: in the same interpreter, with the libraries that are allowed there.
type script struct{ proto *lua.FunctionProto }

// readScript compiles a file of the customizations for a kind.
func readScript(kind, file string) (script, error) {
	path := filepath.Join(customizations, kind, file)
	source, err := os.ReadFile(path)
	if err != nil {
		return script{}, err
	}
	return compile(path, string(source))
}

func compile(name, source string) (script, error) {
	chunk, err := parse.Parse(strings.NewReader(source), name)
	if err != nil {
		return script{}, err
	}
	proto, err := lua.Compile(chunk, name)
	return script{proto}, err
}

// run returns what the script returns for the object, as JSON would hold it. An empty table is a list, as with Argo CD.
func (s script) run(object *unstructured.Unstructured) (any, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: 32, RegistrySize: 1024})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(library.open), Protect: true}, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	state.PreloadModule(lua.OsLibName, openSafeOS)

	state.SetGlobal("obj", toLua(state, object.Object))
	state.Push(state.NewFunctionFromProto(s.proto))
	if err := state.PCall(0, 1, nil); err != nil {
		return nil, err
	}
	return fromLua(state.Get(-1))
}

// openSafeOS is the library os as Argo CD has it: only time and date, and only by require.
func openSafeOS(state *lua.LState) int {
	lua.OpenOs(state)
	whole, _ := state.Get(-1).(*lua.LTable)
	safe := state.NewTable()
	for _, name := range []string{"time", "date"} {
		safe.RawSetString(name, whole.RawGetString(name))
	}
	state.SetGlobal(lua.OsLibName, lua.LNil)
	state.Push(safe)
	return 1
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch v := value.(type) {
	case bool:
		return lua.LBool(v)
	case string:
		return lua.LString(v)
	case int64:
		return lua.LNumber(v)
	case float64:
		return lua.LNumber(v)
	case []any:
		list := state.NewTable()
		for _, item := range v {
			list.Append(toLua(state, item))
		}
		return list
	case map[string]any:
		table := state.NewTable()
		for key, item := range v {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}

func fromLua(value lua.LValue) (any, error) {
	switch v := value.(type) {
	case lua.LBool:
		return bool(v), nil
	case lua.LString:
		return string(v), nil
	case lua.LNumber:
		return float64(v), nil
	case *lua.LNilType:
		return nil, nil // as JSON's null
	case *lua.LTable:
		return fromTable(v)
	default:
		return nil, fmt.Errorf("a script returned a %s", value.Type())
	}
}

func fromTable(table *lua.LTable) (any, error) {
	list, object := []any{}, map[string]any{}
	var err error
	table.ForEach(func(key, item lua.LValue) {
		value, itemErr := fromLua(item)
		if itemErr != nil {
			err = itemErr
		}
		if name, named := key.(lua.LString); named {
			object[string(name)] = value
		} else {
			list = append(list, value)
		}
	})
	if len(object) == 0 {
		return list, err
	}
	return object, err
}
