package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// target is a package that can be mutated, and the suites one of which must notice.
type target struct {
	name   string   // its folder, below the library's root: "./idemhttp"
	module string   // the folder of its module
	suites []string // folders of packages of that module; the likeliest to notice is asked first
}

// targets are all of them but internal/storetable, a table without a statement or an operator. Each suite is one that CI runs with the same tests.
var targets = []target{
	{".", ".", []string{".", "./idemhttp", "./storetest"}},
	{"./idemhttp", ".", []string{"./idemhttp"}},
	{"./internal/record", ".", []string{"./internal/record", "./storetest"}},
	{"./boltstore", "./boltstore", []string{"./boltstore"}},
	{"./pgstore", "./pgstore", []string{"./pgstore"}},
	{"./redisstore", "./redisstore", []string{"./redisstore"}},
}

// chooseTargets returns the targets that names, with commas between, asks for.
func chooseTargets(names string) ([]target, error) {
	var chosen []target
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(targets, func(t target) bool { return path.Clean(t.name) == path.Clean(name) })
		if i < 0 {
			return nil, fmt.Errorf("-package %s: not one of %v", name, targets)
		}
		chosen = append(chosen, targets[i])
	}
	return chosen, nil
}

func (t target) String() string { return t.name }

// folder names the folder of t's state.
func (t target) folder() string {
	if t.name == "." {
		return "root"
	}
	return strings.ReplaceAll(path.Clean(t.name), "/", "-")
}
