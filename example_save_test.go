package idemflight_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/idemflight/idemflight"
)

// A planned restart: Close, Save, exit; Load, listen. The stream goes to a file of another name first, so that
// a process that dies while it saves leaves no half a file in its place.
func ExampleCache_Save() {
	ctx := context.Background()
	errDeclined := errors.New("card declined")
	opts := idemflight.Options[idemflight.Key, string]{
		Codec: idemflight.Codec[idemflight.Key, string]{
			Sentinels: map[string]error{"declined": errDeclined}, // errors.Is works in the next process, too
		},
	}
	dir, err := os.MkdirTemp("", "idemflight")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "keys")

	// The old process.
	old := idemflight.MustNew(opts)
	rent, phone := idemflight.Key{Scope: "acct_7", ID: "rent"}, idemflight.Key{Scope: "acct_7", ID: "phone"}
	_, _ = old.Do(ctx, rent, func(context.Context) (string, error) { return "receipt", nil })
	_, _ = old.Do(ctx, phone, func(context.Context) (string, error) { return "", idemflight.Final(errDeclined) })

	grace, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := old.Close(grace); err != nil {
		fmt.Println("some keys are still in flight, and will be held:", err)
	}
	if err := saveTo(file, old); err != nil {
		fmt.Println(err)
	}

	// The new process. An error says that keys may be unguarded: it does not listen then.
	cache := idemflight.MustNew(opts)
	f, err := os.Open(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	report, err := cache.Load(ctx, f)
	fmt.Printf("%+v %v\n", report, err)

	none := func(context.Context) (string, error) { return "", errors.New("must not run") }
	fmt.Println(cache.Do(ctx, rent, none))
	_, err = cache.Do(ctx, phone, none)
	fmt.Println(err, errors.Is(err, errDeclined))
	// Output:
	// {Restored:2 Interrupted:0 Expired:0 Refused:0} <nil>
	// receipt <nil>
	// card declined true
}

// saveTo saves c to a file that is there whole or not at all.
func saveTo(file string, c *idemflight.Cache[idemflight.Key, string]) error {
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	err = errors.Join(c.Save(f), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// JSON would lose what is not exported of V: functions of one's own write it.
func ExampleCodec() {
	type receipt struct{ number string }
	codec := idemflight.Codec[string, receipt]{
		EncodeValue: func(r receipt) ([]byte, error) { return []byte(r.number), nil },
		DecodeValue: func(data []byte) (receipt, error) { return receipt{string(data)}, nil },
	}
	for _, codec := range []idemflight.Codec[string, receipt]{{}, codec} {
		cache := idemflight.MustNew(idemflight.Options[string, receipt]{Codec: codec})
		fmt.Println(cache.Save(io.Discard) == nil)
	}
	// Output:
	// false
	// true
}

func ExampleParseKey() {
	key := idemflight.Key{Scope: "acct_7", ID: "rent 2026/12"}
	fmt.Println(key)
	fmt.Println(idemflight.ParseKey(key.String()))
	_, err := idemflight.ParseKey("acct_7")
	fmt.Println(err)
	// Output:
	// acct_7/rent%202026%2F12
	// acct_7/rent%202026%2F12 <nil>
	// idemflight: not the text of a Key: no / between scope and ID
}

// One observer counts, another logs: each hears every event, even if the other panics.
func ExampleJoinObservers() {
	count := make(map[idemflight.EventKind]int)
	cache := idemflight.MustNew(idemflight.Options[string, int]{
		Observer: idemflight.JoinObservers(
			func(_ context.Context, e idemflight.Event[string]) { count[e.Kind]++ },
			func(_ context.Context, e idemflight.Event[string]) { fmt.Println(e.Kind, e.Key) },
		),
	})
	for range 2 {
		_, _ = cache.Do(context.Background(), "order-1", func(context.Context) (int, error) { return 1, nil })
	}
	fmt.Println(count)
	// Output:
	// executed order-1
	// replayed order-1
	// map[executed:1 replayed:1]
}
