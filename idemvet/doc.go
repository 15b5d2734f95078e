// Package idemvet has analyzers that find misuse of package idemflight: code that compiles, passes its tests,
// and guards nothing, or races with its caller.
//
//	go vet -vettool=$(which idemvet) ./...
//
// runs them all, with the command in cmd/idemvet. Package golangci is a plugin of golangci-lint. The page
// docs/vet.md in the repository shows wrong and right code for each.
//
//	idemcontext  fn uses the context of its caller
//	idemcapture  fn uses what its caller closes, reuses or reads once it has left
//	idemkey      a key that is made in the call itself
//	idembegin    the error of BeginEffect is ignored
//	idemeffect   BeginEffect or NoEffect with a context that is not that of fn
//	idemmark     an error before BeginEffect that holds its key, although nothing has begun
//
// They report what is certain from one package alone, and are silent about the rest: fn has to be a function
// literal in the call, or in a local variable that is set once. So a clean run proves little, and a report is
// worth reading. Two flags look for more, and can be wrong: -idemkey.local and -idembegin.missing.
//
// Here, fn is the function that is given to Do, DoResult or Wrap, as in the documentation of idemflight.
package idemvet

import "golang.org/x/tools/go/analysis"

// Analyzers are all analyzers of this package.
var Analyzers = []*analysis.Analyzer{Context, Capture, Key, Begin, Effect, Mark}

const page = "https://github.com/idemflight/idemflight/blob/main/docs/vet.md#"
