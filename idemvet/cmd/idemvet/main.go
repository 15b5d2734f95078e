// Idemvet finds misuse of package idemflight: see package idemvet, and "idemvet help".
//
//	go vet -vettool=$(which idemvet) ./...
//	idemvet -fix ./...
package main

import (
	"golang.org/x/tools/go/analysis/multichecker"

	"github.com/idemflight/idemflight/idemvet"
)

func main() { multichecker.Main(idemvet.Analyzers...) }
