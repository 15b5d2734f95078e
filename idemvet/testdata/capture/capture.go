// Package capture has fns that use what their caller closes, reuses or reads, and others that do not.
package capture

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5"

	"github.com/idemflight/idemflight"
)

var payments = idemflight.MustNew(idemflight.Options[string, string]{})

func key(name string) (string, idemflight.Fingerprint, error) {
	return name, idemflight.Fingerprint{}, nil
}

func request(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		w.WriteHeader(http.StatusOK)                     // want `fn may outlive its caller, and must not use w, a response: copy what it needs, or call with Inline\(\)`
		return r.FormValue("a") + r.Host, r.Body.Close() // want `must not use r, a request`
	})
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		return r.Host, nil // want `must not use r`
	}, idemflight.WithTTL(1), idemflight.WithMaxWait(1), idemflight.WithFingerprint(idemflight.Fingerprint{}))
	idemflight.Wrap(payments, key, func(context.Context, string) (string, error) {
		return r.Host, nil // want `must not use r`
	})
	host := r.Host
	payments.Do(ctx, "key", func(context.Context) (string, error) { return host, nil })
	payments.Do(ctx, "key", func(context.Context) (string, error) { return "", r.Context().Err() }) // want `fn uses the context of its caller`
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		later := r.Context // want `must not use r`
		return "", later().Err()
	})
}

func inline(w http.ResponseWriter, r *http.Request, options []idemflight.CallOption) {
	use := func(context.Context) (string, error) { return r.Host, nil }
	payments.Do(r.Context(), "key", use, idemflight.Inline())
	payments.Do(r.Context(), "key", use, idemflight.WithTTL(1), (idemflight.Inline()))
	payments.Do(r.Context(), "key", use, options...) // may be among them
	option := idemflight.WithTTL(1)
	payments.Do(r.Context(), "key", use, option) // may be it
	idemflight.Wrap(payments, key, func(context.Context, string) (string, error) { return r.Host, nil }, idemflight.Inline())
}

// A caller whose context does not end never leaves.
func stays(r *http.Request) {
	use := func(context.Context) (string, error) { return r.Host, nil }
	payments.Do(context.Background(), "key", use)
	payments.Do(context.TODO(), "key", use)
	payments.Do(context.WithoutCancel(r.Context()), "key", use)
	payments.Do(context.WithValue(context.WithoutCancel(r.Context()), "a", 1), "key", use)
	local := context.Background()
	payments.Do(local, "key", use)
	payments.Do(background, "key", use)
}

var background = context.Background()

func leaves(r *http.Request) {
	use := func(context.Context) (string, error) {
		return r.Host, nil // want `must not use r`
	}
	above, cancel := context.WithCancel(context.Background())
	defer cancel()
	payments.Do(above, "key", use)
}

func leavesBelow(r *http.Request) {
	use := func(context.Context) (string, error) {
		return r.Host, nil // want `must not use r`
	}
	below, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	payments.Do(below, "key", use)
}

func body(w http.ResponseWriter, r *http.Request) {
	plain, decoder := r.Body, json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	payments.Do(r.Context(), "key", func(context.Context) (string, error) {
		var amount int
		if err := decoder.Decode(&amount); err != nil { // want `must not use decoder, the body of a request`
			return "", err
		}
		_, err := io.ReadAll(plain) // want `must not use plain, the body of a request`
		return "", err
	})
	all, _ := io.ReadAll(r.Body)
	payments.Do(r.Context(), "key", func(context.Context) (string, error) { return string(all), nil })
}

func upload(ctx context.Context, r *http.Request, file multipart.File, header *multipart.FileHeader) {
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		_, err := io.ReadAll(file)  // want `must not use file, an uploaded file`
		return header.Filename, err // want `must not use header, an uploaded file`
	})
	opened, _, _ := r.FormFile("a")
	payments.Do(ctx, "key", func(context.Context) (string, error) {
		return "", opened.Close() // want `must not use opened, an uploaded file`
	})
}

// A request to be sent is one's own; that of a RoundTripper is not.
func client(ctx context.Context, c *http.Client, given *http.Request) {
	own, _ := http.NewRequest(http.MethodPost, "/", nil)
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		_, err := c.Do(own.WithContext(ctx))
		return "", err
	})
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		_, err := c.Do(given.WithContext(ctx)) // want `must not use given, a request`
		return "", err
	})
}

func transaction(ctx context.Context, db *sql.DB, tx pgx.Tx) error {
	local, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer local.Rollback()
	_, err = payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		if _, err := tx.Exec(ctx, "insert"); err != nil { // want `must not use tx, a transaction of its caller`
			return "", err
		}
		_, err := local.ExecContext(ctx, "insert") // want `must not use local, a transaction of its caller`
		return "", err
	})
	_, err = payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		own, err := db.BeginTx(ctx, nil)
		if err != nil {
			return "", err
		}
		return "", own.Commit()
	})
	return err
}

func result(ctx context.Context) (receipt string, err error) {
	payments.Do(ctx, "key", func(ctx context.Context) (string, error) {
		receipt = "r"  // want `must not use receipt, a result of the function around it`
		return "", err // want `must not use err, a result of the function around it`
	})
	payments.Do(ctx, "key", func(ctx context.Context) (receipt string, err error) {
		func() { receipt, err = "r", nil }() // its own
		return receipt, err
	})
	return receipt, err
}

// The same fn is given to a call that stays, and to one that does not; and it is not reported twice.
func both(r *http.Request) {
	use := func(context.Context) (string, error) {
		return r.Host, nil // want `must not use r`
	}
	payments.Do(r.Context(), "key", use, idemflight.Inline())
	payments.Do(r.Context(), "key", use)
	payments.Do(r.Context(), "key", use)
}

func framework(c *gin.Context) {
	payments.Do(c.Request.Context(), "key", func(ctx context.Context) (string, error) {
		return c.Param("id"), nil // want `must not use c, a context that gin reuses`
	})
	copied := c.Copy()
	payments.Do(c.Request.Context(), "key", func(ctx context.Context) (string, error) {
		return copied.Param("id"), nil
	})
}
