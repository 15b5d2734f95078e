package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/idemflight/idemflight"
)

// saved is an entry of the cache in a file.
type saved struct {
	Key         idemflight.Key `json:"key"`
	State       string         `json:"state"`
	Payment     payment        `json:"payment,omitzero"`
	Error       *savedError    `json:"error,omitempty"`
	Fingerprint string         `json:"fingerprint,omitempty"`
	StartedAt   time.Time      `json:"started_at,omitzero"`
	CompletedAt time.Time      `json:"completed_at,omitzero"`
	ExpiresAt   time.Time      `json:"expires_at,omitzero"`
}

// savedError is an error as text, and as the kind that the service goes by. This is all that is
// left of it after a restart: errors.Is works for the kinds below and for nothing else.
type savedError struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// savedKinds are the errors that must be told apart after a restart. Only what Final retains is
// answered to clients again; of a payment whose outcome is unknown the text is enough.
var savedKinds = map[string]error{
	"declined":  errDeclined,
	"no answer": errNoAnswer,
}

// restoredError is a savedError, read.
type restoredError struct {
	text string
	kind error
}

func (e *restoredError) Error() string { return e.text }
func (e *restoredError) Unwrap() error { return e.kind }

// saveKeys writes what the cache knows to a file, for the next process. To be called after Close:
// what changes later is in no file.
func (s *shop) saveKeys(path string) error {
	entries := []saved{}
	for key, e := range s.payments.All() {
		sv := saved{
			Key:         key,
			State:       e.State.String(),
			Payment:     e.Value,
			StartedAt:   e.StartedAt,
			CompletedAt: e.CompletedAt,
			ExpiresAt:   e.ExpiresAt,
		}
		if e.Err != nil {
			sv.Error = &savedError{Kind: "other", Text: e.Err.Error()}
			for kind, err := range savedKinds {
				if errors.Is(e.Err, err) {
					sv.Error.Kind = kind
				}
			}
		}
		if e.Fingerprint != (idemflight.Fingerprint{}) {
			sv.Fingerprint = hex.EncodeToString(e.Fingerprint[:])
		}
		entries = append(entries, sv)
	}
	text, err := json.MarshalIndent(entries, "", "\t")
	if err != nil {
		return err
	}
	// Keys and payments are the customers' business: nobody else may read them. Renamed when it is
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
			err = s.payments.Restore(sv.Key, e)
		}
		// What expired meanwhile is refused, and is no loss.
		expired := !sv.ExpiresAt.IsZero() && !time.Now().Before(sv.ExpiresAt)
		if err != nil && !expired {
			return fmt.Errorf("restore %v: %w", sv.Key, err)
		}
	}
	return nil
}

func (sv saved) entry() (idemflight.Entry[payment], error) {
	e := idemflight.Entry[payment]{
		Value:       sv.Payment,
		StartedAt:   sv.StartedAt,
		CompletedAt: sv.CompletedAt,
		ExpiresAt:   sv.ExpiresAt,
	}
	// By name: the numbers may differ between versions of the library, and the file outlives one.
	for _, state := range []idemflight.State{idemflight.InFlight, idemflight.Retained, idemflight.Held} {
		if state.String() == sv.State {
			e.State = state
		}
	}
	if e.State == 0 {
		return e, fmt.Errorf("state %q is unknown", sv.State)
	}
	if sv.Error != nil {
		e.Err = &restoredError{text: sv.Error.Text, kind: savedKinds[sv.Error.Kind]}
	}
	fp, err := hex.DecodeString(sv.Fingerprint)
	if err != nil || len(fp) > 0 && len(fp) != len(e.Fingerprint) {
		return e, fmt.Errorf("fingerprint %q is malformed", sv.Fingerprint)
	}
	copy(e.Fingerprint[:], fp)
	return e, nil
}
