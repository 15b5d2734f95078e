// Package uuid stands for github.com/gofrs/uuid: names and signatures that the tests use.
package uuid

type UUID [16]byte

func NewV4() (UUID, error)               { return UUID{}, nil }
func NewV5(space UUID, name string) UUID { return space }
func Must(id UUID, err error) UUID       { return id }
func (id UUID) String() string           { return "" }
