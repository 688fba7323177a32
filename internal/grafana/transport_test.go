package grafana_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana"
	"github.com/securevalues-io/grafana-secure-value-operator/internal/grafana/grafanatest"
)

// fakeGrafana starts a fake Grafana that takes testToken, and returns it with a client of it.
func fakeGrafana(t *testing.T, options ...grafanatest.Option) (*grafanatest.Server, *grafana.Client) {
	t.Helper()
	server := grafanatest.New(options...)
	server.AddToken(testToken)
	running := started(t, server.Start)
	return server, newClient(t, config(running.URL))
}

// started starts a fake Grafana until the test ends.
func started(t *testing.T, start func() (*grafanatest.Running, error)) *grafanatest.Running {
	t.Helper()
	running, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Close)
	return running
}

func TestValuesArriveByteForByte(t *testing.T) {
	server, c := fakeGrafana(t)
	for name, content := range map[string]string{
		"quotes":            `"a" \ 'b' <c> & /`,
		"trailing-newline":  "line\n",
		"white-space":       " \t\r\n ",
		"emoji":             "🔑👩‍👩‍👧",
		"control":           "\x00\x01\x1f\x7f\u0085",
		"separators":        "\u2028\u2029\ufeff\ufffd",
		"escapes-as-text":   `\u0041\n\"`,
		"most-that-is-sent": strings.Repeat("\x01", grafana.MaxValueBytes),
		"at-the-bound":      strings.Repeat(`"🔑`, grafana.MaxValueBytes/5) + "\n",
	} {
		sv := secureValue()
		sv.Name, sv.Value = name, grafana.NewValue([]byte(content))
		made, err := c.Create(t.Context(), sv)
		if err != nil || len(made.Value.Bytes()) != 0 {
			t.Fatalf("%s: %v", name, err)
		}
		if stored, _ := server.Value("default", name); string(stored.Value) != content {
			t.Errorf("%s arrived as %q", name, stored.Value)
		}
		reversed := []rune(content)
		for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
			reversed[i], reversed[j] = reversed[j], reversed[i]
		}
		sv.Value = grafana.NewValue([]byte(string(reversed)))
		if _, err := c.Update(t.Context(), sv); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if stored, _ := server.Value("default", name); string(stored.Value) != string(reversed) {
			t.Errorf("%s, updated, arrived as %q", name, stored.Value)
		}
	}
}

// A write whose connection breaks may have had its effect: only the caller may repeat it. The connection is one that was used
// before, since the transport repeats only on those.
func TestWritesAreMadeOnce(t *testing.T) {
	for _, endpoint := range []string{"create", "update", "delete"} {
		t.Run(endpoint, func(t *testing.T) {
			server, c := fakeGrafana(t)
			server.Put("default", grafanatest.Stored{Name: "other", Description: "x"})
			if _, err := c.Get(t.Context(), "other"); err != nil {
				t.Fatal(err)
			}
			server.ResetCalls()
			server.Inject(grafanatest.Fault{Cut: true})
			expectOnly(t, endpoints[endpoint](t.Context(), c), grafana.ErrUnreachable)
			if calls := server.Calls(); len(calls) != 1 {
				t.Errorf("calls = %v", calls)
			}
		})
	}
}

// An answer that comes before the whole request was read leaves the rest of the body to the transport, which goes on with it.
func TestEarlyAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"message":"Unauthorized"}`)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(server.Close)
	sv := secureValue()
	sv.Value = grafana.NewValue(bytes.Repeat([]byte{1}, grafana.MaxValueBytes))
	sv.Annotations = map[string]string{"long": strings.Repeat("x", 8<<20)}
	_, err := newClient(t, config(server.URL)).Create(t.Context(), sv)
	expectOnly(t, err, grafana.ErrUnauthorized)
}

// What is in front of a Grafana may encode answers unasked.
func TestEncodedAnswersAreNamed(t *testing.T) {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	_, _ = io.WriteString(z, object)
	_ = z.Close()
	for encoding, row := range map[string]struct {
		code int
		want error
		word string
	}{
		"gzip":        {200, grafana.ErrInvalidResponse, "gzip"},
		"GZIP":        {401, grafana.ErrInvalidResponse, "gzip"},
		"br":          {422, grafana.ErrInvalidResponse, "br"},
		"x-" + canary: {404, grafana.ErrInvalidResponse, "an unknown encoding"},
		"gzip, gzip":  {200, grafana.ErrInvalidResponse, "an unknown encoding"},
		"deflate":     {502, grafana.ErrUnavailable, ""},
		"zstd":        {429, grafana.ErrRateLimited, ""},
	} {
		t.Run(encoding, func(t *testing.T) {
			var accepted atomic.Value
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				accepted.Store(r.Header.Get("Accept-Encoding"))
				w.Header().Set("Content-Encoding", encoding)
				w.WriteHeader(row.code)
				_, _ = w.Write(body.Bytes())
			}))
			t.Cleanup(server.Close)
			_, err := newClient(t, config(server.URL)).Get(t.Context(), "db")
			expectOnly(t, err, row.want)
			if e, ok := errors.AsType[*grafana.Error](err); !ok || errors.Is(err, grafana.ErrEncoded) != (row.word != "") || e.Detail != row.word {
				t.Errorf("error = %v, detail %q, want %q", err, e.Detail, row.word)
			}
			if accepted.Load() != "identity" {
				t.Errorf("Accept-Encoding: %q", accepted.Load())
			}
		})
	}
}

func TestListsAreBounded(t *testing.T) {
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"SecureValueList","items":[`)
		item := `{"metadata":{"name":"db"},"spec":{"description":"` + strings.Repeat("x", 64<<10) + `"}},`
		for chunk := bytes.Repeat([]byte(item), 16); r.Context().Err() == nil; {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	cfg := config(server.URL)
	cfg.Timeout = time.Minute // it is the bytes that end it
	_, err := list(t.Context(), newClient(t, cfg))
	expectOnly(t, err, grafana.ErrInvalidResponse)
	if sent.Load() > 128<<20 {
		t.Errorf("%d bytes were read", sent.Load())
	}
}

// What a hostile server sends must not unfold in memory: it is refused as soon as one part of it, or their number, is too large.
func TestPartsOfListsAreBounded(t *testing.T) {
	const (
		head = `{"kind":"SecureValueList","items":[`
		item = `{"metadata":{"name":"db"}}`
	)
	long := strings.Repeat("x", 2<<20)
	for name, parts := range map[string][]string{ // sent one after the other, the last one again and again
		"a large item":        {head + `{"spec":{"description":"`, long},
		"many decrypters":     {head + `{"spec":{"decrypters":[""`, strings.Repeat(`,""`, 1<<20)},
		"a large other part":  {`{"metadata":{"x":"`, long},
		"a large kind":        {`{"kind":"`, long},
		"a large key":         {`{"`, long},
		"white space":         {head, strings.Repeat(" ", 2<<20)},
		"very many items":     {head + item, strings.Repeat(","+item, 10_000)},
		"a name that is none": {head + `{"metadata":{"name":"` + strings.Repeat("x", 254) + `"}}`, strings.Repeat(","+item, 10_000)},
	} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for i := 0; r.Context().Err() == nil; i++ {
					n, err := io.WriteString(w, parts[min(i, len(parts)-1)])
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			}))
			t.Cleanup(server.Close)
			_, err := list(t.Context(), newClient(t, config(server.URL)))
			expectOnly(t, err, grafana.ErrInvalidResponse)
			if sent.Load() > 16<<20 { // with what is under way
				t.Errorf("%d bytes were read", sent.Load())
			}
		})
	}
}

// wideParts are parts of answers of about so many bytes, which have as many elements as fit.
func wideParts(size int) map[string]string {
	wide := func(element string) string {
		return "[" + strings.Repeat(element+",", size/(len(element)+1)) + element + "]"
	}
	keys := &strings.Builder{}
	for i := 0; keys.Len() < size; i++ {
		_, _ = fmt.Fprintf(keys, `"%x":"",`, i)
	}
	object := "{" + keys.String() + `"z":""}`
	return map[string]string{
		"a status":        `"status":` + object,
		"statuses":        `"status":` + wide("{}"),
		"decrypters":      `"spec":{"decrypters":` + wide(`""`) + `}`,
		"null decrypters": `"spec":{"decrypters":` + wide("null") + `}`,
		"labels":          `"metadata":{"name":"db","labels":` + object + `}`,
		"annotations":     `"metadata":{"name":"db","annotations":` + object + `}`,
		"owners":          `"metadata":{"name":"db","ownerReferences":` + wide("{}") + `}`,
		"causes":          `"details":{"causes":` + wide("{}") + `}`,
		"causes with one": `"details":{"causes":` + wide(`{"field":"spec"}`) + `}`,
		"details":         `"details":` + object,
		"numbers":         `"x":` + wide("0"),
		"another part":    `"x":` + object,
	}
}

// What is small on the wire or nested deeply does not grow in memory, whatever was asked for.
func TestHostileAnswersStaySmall(t *testing.T) {
	const most = 8 << 20 // bytes that are allocated for one answer
	bomb := &bytes.Buffer{}
	z := gzip.NewWriter(bomb)
	_, _ = io.WriteString(z, `{"kind":"SecureValueList","items":[{"metadata":{"name":"db"}}`)
	for item := strings.Repeat(`,{"metadata":{"name":"db"}}`, 10_000); bomb.Len() < 20_000; {
		_, _ = io.WriteString(z, item)
	}
	_ = z.Close()
	const deep = 500_000
	type hostile struct {
		body, encoding string
		code           int  // 200 unless set
		whole          bool // it is within the bounds, and may be taken
	}
	answers := map[string]hostile{}
	for _, size := range []int{1 << 20, 500 << 10, 120 << 10} {
		for part, content := range wideParts(size) {
			name, object := fmt.Sprintf("%s of %d bytes", part, size), `"kind":"SecureValue","metadata":{"name":"db"},`+content
			if strings.HasPrefix(content, `"metadata"`) {
				object = `"kind":"SecureValue",` + content
			}
			answers[name] = hostile{body: "{" + object + "}", whole: size < 128<<10}
			answers[name+", in an item"] = hostile{body: `{"kind":"SecureValueList","items":[{` + object + `}]}`, whole: size < 512<<10}
			answers[name+", beside the items"] = hostile{body: `{"kind":"SecureValueList","items":[],` + content + `}`, whole: size < 512<<10}
			answers[name+", in a Status"] = hostile{body: `{"kind":"Status",` + content + "}", code: http.StatusUnprocessableEntity, whole: size < 128<<10}
		}
	}
	maps.Copy(answers, map[string]hostile{
		"deep lists":                {body: strings.Repeat("[", deep)},
		"deep objects":              {body: strings.Repeat(`{"a":`, deep/5)},
		"deep items":                {body: `{"kind":"SecureValueList","items":` + strings.Repeat("[", deep)},
		"a deep item":               {body: `{"kind":"SecureValueList","items":[{"spec":` + strings.Repeat(`{"spec":`, deep/10)},
		"a deep part of one object": {body: `{"kind":"SecureValue","metadata":{"labels":` + strings.Repeat("[", deep)},
		"deep and well-formed":      {body: `{"kind":"SecureValueList","items":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`},
		"a long number":             {body: `{"kind":"SecureValue","status":{"version":` + strings.Repeat("9", deep) + `}}`},
		"gzip":                      {body: bomb.String(), encoding: "gzip"},
		"gzip without a header":     {body: bomb.String()},
		"gzip in gzip":              {body: bomb.String(), encoding: "gzip, gzip"},
		"deflate":                   {body: bomb.String(), encoding: "deflate"},
	})
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if answer.encoding != "" {
					w.Header().Set("Content-Encoding", answer.encoding)
				}
				if answer.code != 0 {
					w.WriteHeader(answer.code)
				}
				_, _ = io.WriteString(w, answer.body)
			}))
			t.Cleanup(server.Close)
			c := newClient(t, config(server.URL))
			for endpoint, call := range endpoints {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := call(t.Context(), c)
				runtime.ReadMemStats(&after)
				switch {
				case answer.whole:
				case answer.code != 0:
					expectOnly(t, err, grafana.ErrUnavailable)
				case endpoint != "delete": // its answer is no proof, and not read
					expectOnly(t, err, grafana.ErrInvalidResponse)
				}
				if grown := after.TotalAlloc - before.TotalAlloc; grown > most {
					t.Errorf("%s: %d bytes were allocated for an answer of %d", endpoint, grown, len(answer.body))
				}
			}
		})
	}
}

func TestListsShowEachSecureValue(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"SecureValueList","items":[{"metadata":{"name":"one"},"spec":{"description":"`+strings.Repeat("x", 512<<10-1000)+`"}},`+
			`{"metadata":{"name":"two","labels":{"c":"3"},"creationTimestamp":"2026-01-02T03:04:05Z"},`+
			`"spec":{"description":"text","decrypters":["b","a"]},"status":{"version":7}},`+
			strings.Repeat(`{"metadata":{"name":"more"}},`, 99_997)+`{"metadata":{"name":"last"}}]}`)
	}))
	t.Cleanup(server.Close)
	values, err := list(t.Context(), newClient(t, config(server.URL)))
	if err != nil || len(values) != 100_000 {
		t.Fatalf("%d values, %v", len(values), err)
	}
	two := values[1]
	if got := fmt.Sprint(two.Name, two.Labels, two.Version, two.CreatedAt.Unix(), two.Description, two.Decrypters); got != "twomap[c:3] 7 1767323045text[b a]" {
		t.Errorf("listed %s", got)
	}
}

// However many there are, no more than one of them is in memory.
func TestListsAreReadValueByValue(t *testing.T) {
	const values = 10_000
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"SecureValueList","items":[`)
		for i := range values {
			_, _ = fmt.Fprintf(w, `{"metadata":{"name":"value-%d","labels":{"a":"%s"}},"spec":{"description":"x"}},`, i, strings.Repeat("x", 500))
		}
		_, _ = io.WriteString(w, `{"metadata":{"name":"last"}}]}`)
	}))
	t.Cleanup(server.Close)
	c := newClient(t, config(server.URL))
	live := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, seen := live(), 0
	err := c.List(t.Context(), "", func(sv *grafana.SecureValue) {
		if seen++; sv.Name != "last" {
			return
		}
		if grown := int64(live()) - int64(before); grown > 2<<20 {
			t.Errorf("%d bytes are held for %d values", grown, seen)
		}
	})
	if err != nil || seen != values+1 {
		t.Errorf("%d values seen, %v", seen, err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	server := grafanatest.New()
	server.AddToken(testToken)
	server.Put("default", grafanatest.Stored{Name: "db", Description: "x"})
	var connections atomic.Int32
	listening := httptest.NewUnstartedServer(server)
	listening.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	listening.Start()
	t.Cleanup(listening.Close)
	c := newClient(t, config(listening.URL))
	for range 3 {
		for endpoint, call := range endpoints {
			if err := call(t.Context(), c); err != nil && !errors.Is(err, grafana.ErrAlreadyExists) && !errors.Is(err, grafana.ErrNotFound) {
				t.Fatalf("%s: %v", endpoint, err)
			}
		}
	}
	if connections.Load() != 1 {
		t.Errorf("%d connections", connections.Load())
	}
}

// Connections that no longer lead anywhere, as behind a firewall that has forgotten them, cost one call together, not one each.
func TestSilentConnectionsCostOneCall(t *testing.T) {
	const connections = 8
	for name, secure := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := grafanatest.New()
			state.AddToken(testToken)
			var arrived sync.WaitGroup
			arrived.Add(connections)
			var calls atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) <= connections { // all at the same time, each on its connection
					arrived.Done()
					arrived.Wait()
				}
				state.ServeHTTP(w, r)
			}))
			server.EnableHTTP2, server.Config.ErrorLog = true, log.New(io.Discard, "", 0)
			cfg := config("")
			if secure {
				server.StartTLS()
				cfg.CAData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
			} else {
				server.Start()
			}
			t.Cleanup(server.Close)
			relay := newRelay(t, server.Listener.Addr().String())
			cfg.URL = strings.Replace(server.URL, server.Listener.Addr().String(), relay.address, 1)
			c := newClient(t, cfg)
			var before sync.WaitGroup
			for range connections {
				before.Go(func() {
					if _, err := list(t.Context(), c); err != nil {
						t.Error(err)
					}
				})
			}
			before.Wait()
			relay.forget()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, first := list(ctx, c)
			if _, err := list(t.Context(), c); err != nil {
				t.Errorf("the call after one that failed with %v: %v", first, err)
			}
		})
	}
}

// An idle connection is closed before the next resync, however short that is, so that many Grafanas cost no more than those that are called.
func TestIdleConnectionsAreClosedBeforeTheNextResync(t *testing.T) {
	t.Parallel()
	server := grafanatest.New()
	server.AddToken(testToken)
	closed := make(chan struct{})
	listening := httptest.NewUnstartedServer(server)
	listening.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	listening.Start()
	t.Cleanup(listening.Close)
	if _, err := list(t.Context(), newClient(t, config(listening.URL))); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("it is open after a minute")
	}
}

// relay passes connections on, until it forgets those that it has: they stay open, and nothing passes any more.
type relay struct {
	address string

	mu        sync.Mutex
	forgotten chan struct{}
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: listener.Addr().String(), forgotten: make(chan struct{})}
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended); _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", target)
			if err != nil {
				_ = near.Close()
				return
			}
			r.mu.Lock()
			forgotten := r.forgotten
			r.mu.Unlock()
			go pass(near, far, forgotten, ended)
			go pass(far, near, forgotten, ended)
		}
	}()
	return r
}

func (r *relay) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.forgotten)
	r.forgotten = make(chan struct{})
}

func pass(from, to net.Conn, forgotten, ended <-chan struct{}) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-forgotten:
			<-ended
			return
		default:
		}
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
