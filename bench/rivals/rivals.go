// Package rivals puts this library and what people use instead behind one interface, each used as
// its own documentation says is best. One file per rival: see lazycache.go for how little one takes.
package rivals

import (
	"context"
	"runtime/debug"
	"slices"
	"time"
)

// Options is what every rival is opened with. Who has no bound or no TTL ignores it.
type Options[V any] struct {
	Capacity int
	TTL      time.Duration

	// Load is what is to happen once per key. Some rivals want it when they are made and others
	// with each call; the closures that the latter need are part of their price.
	Load func(ctx context.Context, key string) (V, error)
}

// Store is an open rival. Do is safe for concurrent use.
type Store[V any] interface {
	Do(ctx context.Context, key string) (V, error)
	Close()
}

// Rival describes one. The features are those of its documentation; what happens to duplicates and
// to the callers of a cancelled leader is not claimed here but measured, by Check.
type Rival[V any] struct {
	Name   string // as in -rivals and /impl=
	Module string // "" for the standard library

	Keeps   bool // a later call gets the result again
	Expires bool // has a TTL
	Bounded bool // has a capacity
	Errors  bool // hands the error of Load to its callers

	Lacks string // what it does not do, in a few words

	Open func(Options[V]) Store[V]
}

// All returns the rivals, this library first and then from the least to the most.
func All[V any]() []Rival[V] {
	return []Rival[V]{
		idemflightRival[V](),
		inlineRival[V](),
		mutexMapRival[V](),
		singleflightRival[V](),
		resenjeRival[V](),
		singleflightLRURival[V](),
		lazycacheRival[V](),
		otterRival[V](),
		theineRival[V](),
		ttlcacheRival[V](),
		sturdycRival[V](),
	}
}

// Named returns the rivals with the given names, in the order of All, and the names it did not find.
func Named[V any](names []string) (found []Rival[V], unknown []string) {
	all := All[V]()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(r Rival[V]) bool { return r.Name == name }) {
			unknown = append(unknown, name)
		}
	}
	return slices.DeleteFunc(all, func(r Rival[V]) bool { return !slices.Contains(names, r.Name) }), unknown
}

// Version returns the version of the rival's module that this program was built with.
func (r Rival[V]) Version() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case !ok:
		return "unknown"
	case r.Module == "":
		return info.GoVersion
	}
	for _, m := range info.Deps {
		if m.Path != r.Module {
			continue
		}
		if m.Replace != nil {
			return "this checkout"
		}
		return m.Version
	}
	return "unknown"
}
