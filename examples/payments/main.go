// Payments is a small payment service that takes every order once, whatever its clients, its bank
// and its own database do meanwhile, and a crowd of clients that try to make it charge twice.
//
//	go run ./examples/payments                        plays all situations and prints a table
//	go run ./examples/payments -serve localhost:8080  keeps the service up, to be tried with curl; at
//	                                                  /idemflight it shows what it holds
//	go run ./examples/payments -data FILE             plays kill -9, with the keys in a file
//
// The part to start from is shop.go: an ordinary handler behind idemhttp.Middleware, which says when
// the bank may have charged. server.go stops it without losing a payment, handover.go carries its
// keys over a restart. The rest is the world around it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitFailed      = 1   // somebody was charged twice, or a situation did not end as it must
	exitUsage       = 2   // the command line was wrong
	exitInterrupted = 130 // a signal came before all situations were played
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for a clean end. Should that take too long, the second one kills.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "payments: %v (-h explains)\n", err)
		return exitUsage
	case cfg.data != "":
		err = playDurable(ctx, cfg.data, stdout, stderr)
	case cfg.serve != "":
		err = serve(ctx, cfg, stdout)
	default:
		return play(ctx, cfg, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "payments: %v\n", err)
		return exitFailed
	}
	return 0
}

// play plays every situation, one after the other, and returns the exit code.
func play(ctx context.Context, cfg config, out io.Writer) int {
	all := situations(cfg)
	t := newTable(out)
	t.header()
	for i, s := range all {
		t.playing(i+1, len(all), s.name)
		r := s.run(ctx, cfg)
		// Cut short, a situation did not end as it must, of course. A double charge is one.
		if ctx.Err() != nil && !r.chargedTwice {
			t.interrupted(len(all))
			return t.exitCode()
		}
		t.row(r)
	}
	t.summary()
	return t.exitCode()
}

// maxDuplicates is how many requests a storm may have.
const maxDuplicates = 10_000

// config is the command line.
type config struct {
	duplicates int           // requests of a storm
	latency    time.Duration // of a charge at the bank
	failures   float64       // share of the charges that fail by chance, 0 to 1
	serve      string        // address to serve on; "" plays the situations
	data       string        // file of keys; "" plays the situations
}

const help = `Payments plays what goes wrong with payments over HTTP: clients that ask twice
or hang up, a bank or a database that fails, answers that get lost, a restart.
Each situation has a server on a loopback port, a bank and clients. A table
shows the requests sent, the charges that the bank booked, the answers seen.

Exit code: 0 if nobody was charged twice and all ended as it must, 1 if not,
2 for a wrong command line, 130 if a signal came first (Ctrl-C ends it cleanly).

usage: payments [flags]

`

// parse reads the command line. It prints the help to out and returns flag.ErrHelp if asked to.
func parse(args []string, out io.Writer) (config, error) {
	var cfg config
	fs := flag.NewFlagSet("payments", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are the caller's to print, on one line
	fs.IntVar(&cfg.duplicates, "duplicates", 500,
		"a storm is `N` requests at once for one payment, 1 to 10000")
	fs.DurationVar(&cfg.latency, "latency", 150*time.Millisecond,
		"the bank takes the time `D` for a charge, 0 to 2s")
	fs.Float64Var(&cfg.failures, "failures", 0,
		"the bank fails by chance, in the share `P` of its calls, 0 to 1:\n"+
			"with -serve, and in the first storm, whose clients then try again")
	fs.StringVar(&cfg.serve, "serve", "",
		"keep the service up on `ADDR`, such as localhost:8080, print curl\n"+
			"commands to try it with, and show what it holds at /idemflight, to\n"+
			"all who reach ADDR, instead of playing the situations")
	fs.StringVar(&cfg.data, "data", "",
		"play instead what happens when the process is killed and its keys are\n"+
			"in `FILE`, and the bank's books in FILE.bank")

	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, help)
		fs.SetOutput(out)
		fs.PrintDefaults()
		return cfg, err
	case err != nil:
		return cfg, err
	case fs.NArg() > 0:
		return cfg, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	var bad []string
	if cfg.duplicates < 1 || cfg.duplicates > maxDuplicates {
		bad = append(bad, fmt.Sprintf("-duplicates %d is not from 1 to %d", cfg.duplicates, maxDuplicates))
	}
	if cfg.latency < 0 || cfg.latency > 2*time.Second {
		bad = append(bad, fmt.Sprintf("-latency %v is not from 0 to 2s", cfg.latency))
	}
	if !(cfg.failures >= 0 && cfg.failures <= 1) { // NaN is neither
		bad = append(bad, fmt.Sprintf("-failures %v is not from 0 to 1", cfg.failures))
	}
	if cfg.serve != "" && cfg.data != "" {
		bad = append(bad, "-serve and -data are two programs")
	}
	if len(bad) > 0 {
		return cfg, errors.New(strings.Join(bad, "; "))
	}
	return cfg, nil
}
