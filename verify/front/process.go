package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// server is one of the two places behind nginx, and the process that is there.
type server struct {
	config config
	cmd    *exec.Cmd
}

// start starts a process, and returns once it listens.
func (s *server) start() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(s.config)
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), serverConfig+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if !bufio.NewScanner(out).Scan() {
		return errors.Join(errors.New("a server did not start"), cmd.Wait())
	}
	s.cmd = cmd
	return nil
}

// stop sends a signal to the process, if there is one, and waits for its end.
func (s *server) stop(signal syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(signal); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	err := cmd.Wait()
	if signal == syscall.SIGKILL {
		return nil // err says that it was killed
	}
	return err
}

// roll restarts one server after the other until ctx ends, and returns how often.
func roll(ctx context.Context, servers []*server, signal syscall.Signal) (restarts int, err error) {
	for ctx.Err() == nil {
		s := servers[restarts%len(servers)]
		if err := s.stop(signal); err != nil {
			return restarts, fmt.Errorf("stopping a server: %w", err)
		}
		if err := s.start(); err != nil {
			return restarts, err
		}
		restarts++
		time.Sleep(rand.N(300 * time.Millisecond))
	}
	return restarts, nil
}

// freeAddr returns an address at which nobody listens.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
