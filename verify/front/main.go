// Front puts real things in front of idemhttp: vegeta sends orders, through clients that send an order again until
// they have a receipt, to an nginx that resends what fails, even what is not idempotent, to the other of two servers,
// while both are restarted over and over. The servers share a pgstore. At the end the charges of every order are
// counted in PostgreSQL.
//
//	go run -C verify/front .                        needs nginx, and asks the PostgreSQL of this machine
//	go run -C verify/front . -for 1m -dsn postgres://…
//
// It prints a table, and exits with 1 if behind idemhttp an order was charged twice, has a receipt of a charge that
// is not there, was answered in two ways, or got no receipt at all. The last row is the same storm without idemhttp,
// which must charge orders twice: otherwise the storm shows nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if config := os.Getenv(serverConfig); config != "" {
		exit(serve(config))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := storm{out: os.Stdout}
	flag.DurationVar(&s.lasts, "for", 30*time.Second, "how `long` each of the three storms lasts")
	flag.IntVar(&s.rate, "rate", 50, "`N` new orders come in a second")
	flag.StringVar(&s.dsn, "dsn", defaultDSN,
		"the `URL` of a database, in which schemas are created, and dropped at the end")
	flag.Parse()
	if s.lasts < time.Second || s.rate < 1 || flag.NArg() > 0 {
		exit(errors.New("-for must be at least 1s, -rate at least 1, and there are no arguments (-h explains)"))
	}
	exit(s.play(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "front: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}
