package main

import (
	"context"
	"errors"
	"os"
)

// saveKeys writes what the cache knows to a file, for the next process. To be called after Close:
// what changes later is in no file.
func (s *shop) saveKeys(path string) error {
	// Keys and answers are the customers' business: nobody else may read them.
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(s.cache.Save(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path) // now it is whole
}

// restoreKeys puts back what the last process saved. To be called before the service listens: a
// request that comes earlier finds its key forgotten. The service must not start on an error. What has
// expired meanwhile is none, and no loss.
func (s *shop) restoreKeys(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	report, err := s.cache.Load(ctx, f)
	s.log.Printf("keys: %d restored, %d interrupted, %d expired, %d refused",
		report.Restored, report.Interrupted, report.Expired, report.Refused)
	return err
}
