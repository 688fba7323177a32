// Package buildinfo says which version a binary is.
package buildinfo

import "runtime/debug"

// Version returns the version that the build has set, or else the one that Go recorded, or "unknown".
func Version(build string) string {
	if build != "" {
		return build
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
