package controlplane

import "net"

// FreeAddress returns an address of this machine, with a port at which nothing listens, for a process that is about to be started. Where the
// machine has more than one loopback address, it is not the one that clients of the others call from: a port of theirs could be the same.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.2:0") //nolint:noctx // it is closed at once
	if err != nil {
		listener, err = net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // as above
	}
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
