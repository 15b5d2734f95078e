package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/idemflight/idemflight"
)

// spot is where in pay a process is killed.
type spot string

const (
	beforeEffect spot = "before BeginEffect"
	beforeCharge spot = "before the charge"
	afterCharge  spot = "after the charge"
	afterAnswer  spot = "after the answer"
	nowhere      spot = "nowhere"
)

// mode is what the process has against its own death.
type mode string

const (
	durable mode = "durable"  // boltstore, and Reconcile
	asksNot mode = "asks not" // boltstore alone
	memory  mode = "memory"
)

// situation is a process that is killed at a spot, and what the client that asks again is to be told.
type situation struct {
	name    string
	kill    spot
	mode    mode
	answer  string
	charges int
}

var situations = []situation{
	{"announced, and not begun", beforeEffect, durable, "executed", 1},
	{"begun, and not yet charged", beforeCharge, durable, "executed", 1}, // in the flight of Reconcile
	{"charged, and no answer yet", afterCharge, durable, "reconciled", 1},
	{"the same, the bank is not asked", afterCharge, asksNot, "unknown", 1},
	{"answered", afterAnswer, durable, "replayed", 1},
	{"keys in memory, charged", afterCharge, memory, "executed", 2},
}

// What a child finds in its environment: this program, started again.
const (
	childKey  = "DURABLE_KEY"
	childMode = "DURABLE_MODE"
	childSpot = "DURABLE_SPOT"
	childData = "DURABLE_DATA"
)

const cents = 1999

// play plays all situations and prints a table. It is an error if one did not end as it must.
func play(out io.Writer, data string) error {
	fmt.Fprintf(out, " %-4s %-33s %-19s %7s  %s\n", "", "killed with -9, and asked again", "killed", "charges", "answer")
	var failed error
	for _, s := range situations {
		key := idemflight.NewID()
		answer, err := s.play(key, data)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		charges, err := bank(data + ".bank").charges(key)
		if err != nil {
			return err
		}
		mark := "ok"
		switch {
		case len(charges) != s.charges || answer != s.answer:
			mark = "FAIL"
			failed = fmt.Errorf("%s: %d charges and %s, where %d and %s are right", s.name, len(charges), answer, s.charges, s.answer)
		case s.mode == memory:
			mark = "!!"
		}
		fmt.Fprintf(out, " %-4s %-33s %-19s %7d  %s\n", mark, s.name, s.kill, len(charges), answer)
	}
	if failed == nil {
		fmt.Fprintf(out, "\nNobody was charged twice whose key was in the file. Without it the second\n"+
			"process knows nothing of the first, and charges again (!!).\n")
	}
	return failed
}

// play starts a process that is killed, and another that is asked for the same payment.
func (s situation) play(key, data string) (answer string, err error) {
	if answer, err = s.start(key, data, s.kill); err == nil {
		answer, err = s.start(key, data, nowhere)
	}
	return answer, err
}

// start starts a process that pays, and kills it when it has reached a spot. It returns what it printed last.
func (s situation) start(key, data string, kill spot) (said string, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childKey+"="+key, childMode+"="+string(s.mode), childSpot+"="+string(kill), childData+"="+data)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // ends with this process, and then the child ends, too
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if said = strings.TrimSpace(line); err == nil && kill != nowhere {
		if said != string(kill) {
			err = fmt.Errorf("the process said %q instead of %q", said, kill)
		}
		err = errors.Join(err, cmd.Process.Kill()) // kill -9, on Unix
		_ = cmd.Wait()
		return said, err
	}
	return said, errors.Join(err, cmd.Wait())
}

// child takes one payment and prints what it is told, or at the spot where it is to be killed says so and waits.
func child(ctx context.Context) error {
	data, kill := os.Getenv(childData), spot(os.Getenv(childSpot))
	s := &shop{bank: bank(data + ".bank"), reach: func(here spot) {
		if here == kill {
			fmt.Println(here)
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(1) // nobody has killed it
		}
	}}
	if m := mode(os.Getenv(childMode)); m == memory {
		s.keys = idemflight.MustNew(idemflight.Options[string, receipt]{EffectsAnnounced: true})
	} else if err := s.open(data, m == durable); err != nil {
		return err
	}
	r, err := s.pay(ctx, os.Getenv(childKey), cents)
	switch {
	case errors.Is(err, idemflight.ErrOutcomeUnknown):
		fmt.Println("unknown")
	case err != nil:
		return err
	default:
		s.reach(afterAnswer)
		fmt.Println(r.Source)
	}
	if s.file == nil {
		return nil
	}
	return errors.Join(s.keys.Close(ctx), s.file.Close())
}
