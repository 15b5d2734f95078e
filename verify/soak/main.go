package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"
)

func main() {
	var (
		lasts    = flag.Duration("for", 10*time.Minute, "how long to go on; the round that is under way then still ends")
		seed     = flag.Uint64("seed", 0, "of the mix; 0: a new one")
		round    = flag.Int("round", -1, "only this round, over and over")
		file     = flag.String("json", "", "also write the report to this file")
		quick    = flag.Bool("quick", false, "small rounds, for half a minute unless -for says otherwise")
		patience = flag.Duration("patience", 20*time.Second, "how long a call may last before it counts as hanging")
	)
	flag.Parse()
	s := soak{seed: *seed, only: *round, lasts: *lasts, scale: 100, patience: *patience, progress: os.Stderr}
	if *quick {
		s.scale = 20
		given := false
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == "for" })
		if !given {
			s.lasts = 30 * time.Second
		}
	}
	if flag.NArg() > 0 || *lasts <= 0 || *patience <= 0 || *round < -1 {
		fmt.Fprintln(os.Stderr, "soak: -for and -patience must be positive, -round not negative, and there are no arguments")
		flag.Usage()
		os.Exit(2)
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
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if len(r.Violations) > 0 {
		os.Exit(1)
	}
}
