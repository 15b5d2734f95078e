package soak

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"time"
)

// Main is the program: it reads the flags, soaks, prints a report, and exits. Program is what the report says
// that replays a round; engines are those whose stores it can soak, beside the one in memory.
func Main(program string, engines ...Engine) {
	engines = append([]Engine{memory}, engines...)
	var names []string
	for _, e := range engines {
		names = append(names, e.Name)
	}
	var (
		lasts    = flag.Duration("for", 10*time.Minute, "how long to go on; the round that is under way then still ends")
		seed     = flag.Uint64("seed", 0, "of the mix; 0: a new one")
		round    = flag.Int("round", -1, "only this round, over and over")
		store    = flag.String("store", "", fmt.Sprintf("only rounds with a Store, in this engine: one of %q", names))
		file     = flag.String("json", "", "also write the report to this file")
		quick    = flag.Bool("quick", false, "small rounds, for half a minute unless -for says otherwise")
		patience = flag.Duration("patience", 20*time.Second, "how long a call may last before it counts as hanging")
	)
	flag.Parse()
	s := soak{program: program, seed: *seed, only: *round, lasts: *lasts, scale: 100, patience: *patience, progress: os.Stderr}
	if *quick {
		s.scale = 20
		given := false
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "for" })
		if !given {
			s.lasts = 30 * time.Second
		}
	}
	i := slices.Index(names, *store)
	if i >= 0 {
		s.engine = &engines[i]
	}
	if flag.NArg() > 0 || *lasts <= 0 || *patience <= 0 || *round < -1 || i < 0 && *store != "" {
		fail(2, errors.New("-for and -patience must be positive, -round not negative, -store one of those (-h), and there are no arguments"))
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	r := s.run(ctx)
	fmt.Print(r.text())
	if *file != "" {
		text, _ := json.MarshalIndent(r, "", "\t") // of numbers, strings and maps of them: cannot fail
		if err := os.WriteFile(*file, append(text, '\n'), 0o666); err != nil {
			fail(1, err)
		}
	}
	if len(r.Violations) > 0 {
		os.Exit(1)
	}
}

func fail(code int, err error) {
	fmt.Fprintf(os.Stderr, "soak: %v\n", err)
	os.Exit(code)
}
