package verdict_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemflight/idemflight"
	"github.com/idemflight/idemflight/internal/verdict"
)

func TestAVerdictCountsForAnFnThatSaidNothing(t *testing.T) {
	says := map[string]func(context.Context){
		"nothing":     func(context.Context) {},
		"BeginEffect": func(ctx context.Context) { _ = idemflight.BeginEffect(ctx) },
		"NoEffect":    idemflight.NoEffect,
	}
	lost := errors.New("no answer")
	for _, tt := range []struct {
		err  error
		want map[string]idemflight.State
	}{
		{&verdict.Error{Err: lost, Retain: true}, map[string]idemflight.State{"nothing": idemflight.Retained, "BeginEffect": idemflight.Held}},
		{&verdict.Error{Err: lost, Retain: true, Hold: true}, map[string]idemflight.State{"nothing": idemflight.Retained, "BeginEffect": idemflight.Held}},
		{&verdict.Error{Err: lost, Hold: true}, map[string]idemflight.State{"nothing": idemflight.Held, "BeginEffect": idemflight.Held}},
		{&verdict.Error{Err: lost}, map[string]idemflight.State{"BeginEffect": idemflight.Held}},
		{&verdict.Error{Err: idemflight.Final(lost), Hold: true}, map[string]idemflight.State{
			"nothing": idemflight.Retained, "BeginEffect": idemflight.Retained, "NoEffect": idemflight.Retained}},
	} {
		for said, say := range says {
			t.Run(fmt.Sprintf("%+v, %s", tt.err, said), func(t *testing.T) {
				c := idemflight.MustNew(idemflight.Options[string, int]{Classify: func(error) idemflight.Disposition {
					t.Error("Classify is asked")
					return idemflight.Hold
				}})
				defer c.Close(t.Context())
				_, err := c.Do(t.Context(), "k", func(ctx context.Context) (int, error) { say(ctx); return 0, tt.err })
				require.ErrorIs(t, err, lost)
				e, _, err := c.Lookup(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, tt.want[said], e.State)
			})
		}
	}
}
