package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// server is a shop that listens.
type server struct {
	shop   *shop
	http   *http.Server
	url    string
	served chan error // what Serve returned
}

// listen starts to serve a shop's handler on an address.
func listen(addr string, s *shop, handler http.Handler) (*server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	srv := &server{
		shop: s,
		http: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			ErrorLog:          s.log,
		},
		url:    "http://" + displayAddr(l.Addr()),
		served: make(chan error, 1),
	}
	go func() {
		defer close(srv.served)
		srv.served <- srv.http.Serve(l)
	}()
	return srv, nil
}

// displayAddr returns an address that a client on this machine can use.
func displayAddr(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	_, port, _ := net.SplitHostPort(addr.String())
	return net.JoinHostPort("localhost", port)
}

// stop ends the server: no new request, and time until ctx ends for those under way, those whose
// clients have hung up included. It returns nil if all of them have ended; those that have not are
// in flight in Cache.All.
func (srv *server) stop(ctx context.Context) error {
	err := srv.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, srv.http.Close()) // time is up: hang up on those who still wait
	}
	// Close looks at what is in flight before it looks at ctx, so that it may follow a Shutdown that
	// used up the time.
	err = errors.Join(err, srv.shop.cache.Close(ctx))
	if served := <-srv.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served) // nil when it was stopped before
	}
	return err
}
