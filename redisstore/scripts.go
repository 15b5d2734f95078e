package redisstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idemflight/idemflight"
)

//go:embed lua/*.lua
var sources embed.FS

// Each verb is one script: what all start with, and its own part.
var (
	claim    = script("claim")
	begin    = script("begin")
	settle   = script("settle")
	renew    = script("renew")
	watch    = script("watch")
	read     = script("read")
	giveBack = script("giveback")
	forget   = script("forget")
)

func script(name string) *redis.Script {
	var source string
	for _, part := range []string{"prelude", name} {
		text, err := sources.ReadFile("lua/" + part + ".lua")
		if err != nil {
			panic("idemflight: bug: " + err.Error())
		}
		source += string(text)
	}
	return redis.NewScript(source)
}

// soon returns what ask does, or ctx's error soon after ctx has ended: go-redis itself waits for an answer up
// to its ReadTimeout, and does not look at the context meanwhile. Then ask goes on, on a goroutine of its own,
// and must not touch what the caller may change.
func soon[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	if ctx.Done() == nil {
		return ask()
	}
	var none T
	if ctx.Err() != nil {
		return none, ctx.Err()
	}
	type result struct {
		answer T
		err    error
	}
	results := make(chan result, 1)
	go func() {
		answer, err := ask()
		results <- result{answer, err}
	}()
	select {
	case r := <-results:
		return r.answer, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-results: // an answer that is there beats a context that has ended
		return r.answer, r.err
	default:
		return none, ctx.Err()
	}
}

// run runs a script for one key. Cost: one round trip, or two if the engine has not seen the script.
func (s *Store) run(ctx context.Context, verb *redis.Script, key string, args ...any) (any, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	reply, err := soon(ctx, func() (any, error) {
		return verb.Run(ctx, s.client, []string{s.prefix + key + suffix}, args...).Result()
	})
	return reply, naming(key, err)
}

// damaged reports whether the prelude of the scripts has found a record that no verb has written.
func damaged(err error) bool { return redis.HasErrorPrefix(err, "DAMAGED") }

// naming returns err, with the key if it is about the record.
func naming(key string, err error) error {
	if damaged(err) {
		return fmt.Errorf("redisstore: key %q: %w", key, err)
	}
	return err
}

// runEach runs a script for each of the engine's keys, with the arguments of the same index, in one round
// trip for each engine of a cluster, or two if one of them has not seen the script. Each command has its own
// error; that of runEach is the context's.
func (s *Store) runEach(ctx context.Context, verb *redis.Script, keys []string, args [][]any) ([]*redis.Cmd, error) {
	return soon(ctx, func() ([]*redis.Cmd, error) {
		cmds := make([]*redis.Cmd, len(keys))
		var unknown []int // the commands that an engine does not know the script of
		pipe := s.client.Pipeline()
		for i, key := range keys {
			cmds[i] = verb.EvalSha(ctx, pipe, []string{key}, args[i]...)
		}
		_, _ = pipe.Exec(ctx) // each command has its error
		for i, cmd := range cmds {
			if errors.Is(cmd.Err(), redis.ErrNoScript) {
				unknown = append(unknown, i)
			}
		}
		if len(unknown) > 0 {
			pipe = s.client.Pipeline()
			for _, i := range unknown {
				cmds[i] = verb.Eval(ctx, pipe, []string{keys[i]}, args[i]...)
			}
			_, _ = pipe.Exec(ctx)
		}
		return cmds, nil
	})
}

// micros returns a duration in the unit of the scripts, rounded up, so that what is above 0 stays so.
func micros(d time.Duration) int64 {
	us := int64(d / time.Microsecond)
	if d%time.Microsecond > 0 {
		us++
	}
	return us
}

// microsOrForever returns a duration, or -1 for a negative one.
func microsOrForever(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return micros(d)
}

func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// id returns an ID as scripts compare it: the zero one is empty.
func id(id idemflight.ClaimID) string {
	if id == (idemflight.ClaimID{}) {
		return ""
	}
	return string(id[:])
}

// standing reads what the scripts' answer and standing return.
func standing(reply any) (x idemflight.Standing, err error) {
	fields, ok := reply.([]any)
	if !ok || len(fields) == 0 {
		return x, fmt.Errorf("redisstore: the engine answered %T, a list was expected", reply)
	}
	state, _ := fields[0].(string)
	if err := x.State.UnmarshalText([]byte(state)); err != nil {
		return x, fmt.Errorf("redisstore: %w", err)
	}
	set := func(i int) bool { return fields[i] == int64(1) }
	switch len(fields) {
	case 1:
		return x, nil
	case 2:
		x.Forgotten = set(1)
		return x, nil
	}
	bytes := func(i int) []byte {
		text, there := fields[i].(string)
		if !there {
			return nil
		}
		return []byte(text)
	}
	number := func(i int) int64 {
		text, _ := fields[i].(string)
		n, bad := strconv.ParseInt(text, 10, 64)
		err = errors.Join(err, bad)
		return n
	}
	instant := func(i int) (at time.Time) {
		if us := number(i); us != 0 {
			at = time.UnixMicro(us)
		}
		return at
	}

	const longest = int64(1<<63-1) / int64(time.Microsecond)
	if left := number(1); left < 0 {
		x.ExpiresIn = -1
	} else {
		x.ExpiresIn = time.Duration(min(left, longest)) * time.Microsecond
	}
	x.Granted, x.Begun, x.Forgotten = set(2), set(3), set(4)
	copy(x.ID[:], bytes(5))
	copy(x.Fingerprint[:], bytes(6))
	x.StartedAt, x.CompletedAt = instant(7), instant(8)
	x.Value, x.Err = bytes(9), bytes(10)
	return x, err
}
