package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/idemhttp"
)

// saved is an entry of the cache in a file: all of it but what JSON cannot keep as it is.
type saved struct {
	Key idemflight.Key
	idemflight.Entry[*idemhttp.Response]

	// In place of those of Entry. The state by name: the numbers may differ between versions of the
	// library, and the file outlives one. Of an error the text is enough: an answer, a declined card
	// included, is a Response without error, so that an error only tells why a key is held.
	State string
	Err   string `json:",omitempty"`
}

// saveKeys writes what the cache knows to a file, for the next process. To be called after Close:
// what changes later is in no file.
func (s *shop) saveKeys(path string) error {
	entries := []saved{}
	for key, e := range s.cache.All() {
		sv := saved{Key: key, Entry: e, State: e.State.String()}
		if e.Err != nil {
			sv.Err = e.Err.Error()
		}
		entries = append(entries, sv)
	}
	text, err := json.MarshalIndent(entries, "", "\t")
	if err != nil {
		return err
	}
	// Keys and answers are the customers' business: nobody else may read them. Renamed when it is
	// whole, so that no half of a file is ever restored.
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// restoreKeys puts back what the last process saved. To be called before the service listens: a
// request that comes earlier finds its key forgotten. The service must not start on an error.
func (s *shop) restoreKeys(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var entries []saved
	if err := json.Unmarshal(text, &entries); err != nil {
		return err
	}
	for _, sv := range entries {
		e, err := sv.entry()
		if err == nil {
			err = s.cache.Restore(context.Background(), sv.Key, e)
		}
		// What expired meanwhile is refused, and is no loss.
		expired := !sv.ExpiresAt.IsZero() && !time.Now().Before(sv.ExpiresAt)
		if err != nil && !expired {
			return fmt.Errorf("restore %v: %w", sv.Key, err)
		}
	}
	return nil
}

// entry returns what was saved as the library knows it.
func (sv saved) entry() (idemflight.Entry[*idemhttp.Response], error) {
	e := sv.Entry
	for _, state := range []idemflight.State{
		idemflight.InFlight, idemflight.Retained, idemflight.Held, idemflight.Shed,
	} {
		if state.String() == sv.State {
			e.State = state
		}
	}
	if e.State == 0 {
		return e, fmt.Errorf("state %q is unknown", sv.State)
	}
	if sv.Err != "" {
		e.Err = errors.New(sv.Err)
	}
	return e, nil
}
