package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Options of a store. The zero value is right for an engine that answers INFO.
type Options struct {
	// NoEviction: you vouch that the engine never evicts (maxmemory-policy noeviction). Needed only where it
	// says nothing about that, neither to INFO memory nor to CONFIG GET. One that says it evicts is refused in any case.
	NoEviction bool
}

// Persistence is what an engine says of how it persists what it acknowledges.
type Persistence int

const (
	PersistenceUnknown  Persistence = iota // it does not say
	NeverPersisted                         // appendonly no: a crash loses all since the last snapshot, if there are snapshots
	PersistedLater                         // appendfsync no: a crash of the machine loses what the kernel has not written yet, often 30 s
	PersistedEachSecond                    // appendfsync everysec: a crash of the machine loses up to a second, or two
	PersistedAlways                        // appendfsync always: before it is acknowledged
)

// String returns the directives of redis.conf that say it: "appendfsync always", "appendfsync everysec",
// "appendfsync no" or "appendonly no"; or "unknown".
func (p Persistence) String() string {
	switch p {
	case NeverPersisted:
		return "appendonly no"
	case PersistedLater:
		return "appendfsync no"
	case PersistedEachSecond:
		return "appendfsync everysec"
	case PersistedAlways:
		return "appendfsync always"
	}
	return "unknown"
}

// Persistence returns what the engine said when the store was opened; of a cluster, what the weakest of its
// masters said. It is for the program to decide what that is enough for. Cost: none, nothing is asked.
func (s *Store) Persistence() Persistence { return s.persistence }

// Open returns the store that is called name in the engine of client: *redis.Client, which may be one for
// Sentinel, or *redis.ClusterClient. A Ring is refused: when one of its engines does not answer it asks another,
// which has not heard of the key.
//
// There is one name per kind of operation; all processes that share keys use the same one, and no other program
// has keys that begin with "name:{". It is not empty, and has no braces.
//
// Open asks each master for its policy, and refuses one whose maxmemory-policy is not noeviction. That goes for an
// engine without maxmemory, too: the limit can be set at any time, and noeviction is what an engine has that
// nobody told otherwise. It asks INFO, which managed engines allow, then CONFIG GET, which many do not; for one
// that answers neither see [Options].NoEviction. What is changed later, and what a replica would do that becomes a
// master, it does not see.
//
// The store has nothing to close. The client is the caller's, and must stay open for as long as caches use the store.
// Open returns the error of an engine that does not answer. Cost: three round trips to each master, and a script.
func Open(ctx context.Context, client redis.UniversalClient, name string, o Options) (*Store, error) {
	switch client.(type) {
	case nil:
		return nil, errors.New("redisstore: no client")
	case *redis.Ring:
		return nil, errors.New("redisstore: a Ring moves keys to another engine when one does not answer, which forgets them: use Cluster or Sentinel")
	}
	if name == "" || strings.ContainsAny(name, "{}") {
		return nil, fmt.Errorf("redisstore: a name is not empty and has no braces: %q", name)
	}
	s := &Store{client: client, prefix: name + ":{", persistence: PersistedAlways}
	_, err := soon(ctx, func() (struct{}, error) { return struct{}{}, s.examine(ctx, o) })
	if err == nil {
		_, err = s.Read(ctx, "") // it runs scripts
	}
	if err != nil {
		return nil, fmt.Errorf("redisstore: open: %w", err)
	}
	return s, nil
}

// examine asks each master what it is.
func (s *Store) examine(ctx context.Context, o Options) error {
	engines, err := masters(ctx, s.client)
	if err != nil {
		return err
	}
	for _, engine := range engines {
		said, declined, err := ask(ctx, engine)
		if err != nil {
			return err
		}
		switch policy := said["maxmemory-policy"]; {
		case policy == "" && !o.NoEviction:
			return fmt.Errorf("the engine does not say whether it evicts (%w): if its maxmemory-policy is noeviction, set Options.NoEviction",
				cmp.Or(declined, errors.New("neither in INFO nor to CONFIG GET")))
		case policy != "" && policy != "noeviction":
			return fmt.Errorf("the engine evicts, and what it has evicted would run again: its maxmemory-policy is %s, not noeviction", policy)
		}
		s.persistence = min(s.persistence, persistence(said))
	}
	return nil
}

// ask returns what an engine says of itself, by the names of redis.conf, as far as it does; and why it declined
// to say more.
func ask(ctx context.Context, engine redis.Cmdable) (said map[string]string, declined, err error) {
	said = map[string]string{}
	hear := func(answer error) bool {
		if refusal, ok := errors.AsType[redis.Error](answer); ok {
			declined = refusal
		} else {
			err = cmp.Or(err, answer)
		}
		return answer == nil
	}

	if info, answer := engine.Info(ctx).Result(); hear(answer) {
		names := map[string]string{"maxmemory_policy": "maxmemory-policy", "aof_enabled": "appendonly"}
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if directive, ok := names[name]; ok {
				said[directive] = value
			}
		}
	}
	for _, directives := range []string{"maxmemory-policy", "append*"} {
		if config, answer := engine.ConfigGet(ctx, directives).Result(); hear(answer) {
			maps.Copy(said, config)
		}
	}
	return said, declined, err
}

func persistence(said map[string]string) Persistence {
	switch said["appendonly"] {
	case "no", "0":
		return NeverPersisted
	case "yes", "1":
		switch said["appendfsync"] {
		case "no":
			return PersistedLater
		case "everysec":
			return PersistedEachSecond
		case "always":
			return PersistedAlways
		}
	}
	return PersistenceUnknown
}
