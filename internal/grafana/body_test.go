package grafana

import (
	"io"
	"testing"
	"time"
)

// The transport may read a body until it closes it, and not again by itself.
func TestRequestBodyIsClearedWhenClosed(t *testing.T) {
	c, err := New(Config{URL: "http://h", Namespace: "default", APIVersion: "v1beta1", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("content")
	req, err := c.request(t.Context(), "PUT", c.collection, content)
	if err != nil {
		t.Fatal(err)
	}
	if req.GetBody != nil || req.ContentLength != int64(len(content)) {
		t.Errorf("GetBody is set: %t, length %d", req.GetBody != nil, req.ContentLength)
	}
	half := make([]byte, 3)
	if _, err := io.ReadFull(req.Body, half); err != nil || string(half) != "con" {
		t.Errorf("read %q, %v", half, err)
	}
	if err := req.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if string(content) != "\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("left in memory: %q", content)
	}
	if rest, err := io.ReadAll(req.Body); err != nil || len(rest) != 0 {
		t.Errorf("read after close: %q, %v", rest, err)
	}
}
