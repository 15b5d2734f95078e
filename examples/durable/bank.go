package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// bank is a file to which every charge adds a line, as often as it is asked to: it has no protection against
// duplicates.
type bank string

var errNoCharge = errors.New("the bank has no charge for this key")

// charge takes money, and is on the disk when it returns.
func (b bank) charge(key string, cents int) (r receipt, err error) {
	f, err := os.OpenFile(string(b), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return r, err
	}
	_, err = fmt.Fprintf(f, "%s %d\n", key, cents)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return r, err
	}
	return b.find(key)
}

// find returns the last charge for a key, or errNoCharge.
func (b bank) find(key string) (r receipt, err error) {
	charges, err := b.charges(key)
	if err == nil && len(charges) == 0 {
		err = errNoCharge
	}
	if err != nil {
		return r, err
	}
	return charges[len(charges)-1], nil
}

// charges returns all charges for a key.
func (b bank) charges(key string) (all []receipt, err error) {
	books, err := os.ReadFile(string(b))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	number := 0
	for line := range strings.Lines(string(books)) {
		number++
		var of string
		r := receipt{Charge: number}
		if _, err := fmt.Sscanf(line, "%s %d", &of, &r.Cents); err != nil {
			return nil, fmt.Errorf("the books of the bank, line %d: %w", number, err)
		}
		if of == key {
			all = append(all, r)
		}
	}
	return all, err
}
