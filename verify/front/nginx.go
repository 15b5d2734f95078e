package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"text/template"
	"time"
)

const proxyTimeout = 400 * time.Millisecond // how long nginx waits for a server before it asks the other

//go:embed nginx.conf
var nginxConf string

var nginxTemplate = template.Must(template.New("nginx.conf").Parse(nginxConf))

// nginx is an nginx in front of the servers. What is exported fills in nginx.conf.
type nginx struct {
	Addr      string
	Dir       string   // of its own, for its files
	Upstreams []string // addresses of the servers
	Timeout   string

	cmd *exec.Cmd
}

// startNginx starts nginx, and returns once it listens.
func startNginx(upstreams []string) (*nginx, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "front-")
	if err != nil {
		return nil, err
	}
	n := &nginx{Addr: addr, Dir: dir, Upstreams: upstreams, Timeout: fmt.Sprintf("%dms", proxyTimeout.Milliseconds())}
	if err := n.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return n, nil
}

func (n *nginx) start() error {
	var conf bytes.Buffer
	if err := nginxTemplate.Execute(&conf, n); err != nil {
		return err
	}
	path := filepath.Join(n.Dir, "nginx.conf")
	if err := os.WriteFile(path, conf.Bytes(), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(n.Dir, 0o755); err != nil { // nginx that is started by root works as another user
		return err
	}
	log := filepath.Join(n.Dir, "error.log")
	n.cmd = exec.Command("nginx", "-p", n.Dir, "-c", path, "-e", log)
	if err := n.cmd.Start(); err != nil {
		return err
	}
	for range 100 {
		if conn, err := net.Dial("tcp", n.Addr); err == nil {
			return conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
	said, err := os.ReadFile(log)
	return errors.Join(fmt.Errorf("nginx does not listen: %s", said), err)
}

// stop stops nginx, removes its files, and returns how many requests it got, and how many of these it sent to both
// servers.
func (n *nginx) stop() (requests, resent int, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(n.Dir)) }()
	if err := errors.Join(n.cmd.Process.Signal(syscall.SIGQUIT), n.cmd.Wait()); err != nil {
		return 0, 0, err
	}
	attempts, err := os.ReadFile(filepath.Join(n.Dir, "attempts.log"))
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(attempts) {
		requests++
		if bytes.Contains(line, []byte(", ")) {
			resent++
		}
	}
	return requests, resent, nil
}
