// Package grpc stands for google.golang.org/grpc: names and signatures that the tests use.
package grpc

import "context"

type ClientConnInterface interface {
	Invoke(ctx context.Context, method string, args, reply any) error
}
