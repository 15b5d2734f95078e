// Command contention measures what duplicates cost that come at the same time: with this library,
// and with what one would use instead.
//
//	go run -C bench ./contention -html contention.html
//
// bench/README.md tells the method.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	go func() {
		<-ctx.Done()
		stop() // the second Ctrl-C ends it at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, term.IsTerminal(int(os.Stderr.Fd()))))
}

// Exit codes. interrupted is what shells report for SIGINT.
const (
	failed      = 1
	badUsage    = 2
	interrupted = 130
)

func run(ctx context.Context, args []string, out, errOut io.Writer, terminal bool) int {
	c, err := parse(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(errOut, "contention:", err)
		return badUsage
	}
	report := measureAll(ctx, c, newProgress(errOut, terminal, c.total()))
	if err := c.write(report, out); err != nil {
		fmt.Fprintln(errOut, "contention:", err)
		return failed
	}
	if report.Interrupted {
		return interrupted
	}
	return 0
}
