// Package parts writes lists of strings into hashes.
package parts

import (
	"encoding/binary"
	"io"
)

// Write writes each part with its length before it, as 8 bytes, big endian. No two different lists of parts make the same
// bytes. The writer must be one that does not fail, as a hash.
func Write(w io.Writer, parts ...string) {
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		_, _ = w.Write(length[:])
		_, _ = io.WriteString(w, part)
	}
}
