package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/idemflight/idemflight"
)

// A record in bytes; integers are big-endian:
//
//	version        1 byte, 1
//	state          1 byte
//	flags          1 byte
//	disposition    1 byte
//	ID, fingerprint
//	epoch, lease, hold, leased, started, completed, expires   8 bytes each
//	value, error   its length + 1 as a varint (0: nil), its bytes
//	checksum       4 bytes, CRC-32C of all before
const version = 1

const (
	settled = 1 << iota
	announced
	forgotten
	knownFlags = 1<<iota - 1
)

const headSize, sumSize = 4 + len(idemflight.ClaimID{}) + len(idemflight.Fingerprint{}) + 7*8, 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns r in bytes, for [Decode].
func Encode(r Record) []byte {
	b := make([]byte, 0, headSize+2*binary.MaxVarintLen64+len(r.Value)+len(r.Err)+sumSize)
	var flags byte
	for flag, is := range map[byte]bool{settled: r.Settled, announced: r.Announced, forgotten: r.Forgotten} {
		if is {
			flags |= flag
		}
	}
	b = append(b, version, byte(r.State), flags, byte(r.Disposition))
	b = append(b, r.ID[:]...)
	b = append(b, r.Fingerprint[:]...)
	for _, n := range [...]int64{int64(r.Epoch), int64(r.Lease), int64(r.Hold), r.Leased, r.Started, r.Completed, r.Expires} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, part := range [...][]byte{r.Value, r.Err} {
		if part == nil {
			b = append(b, 0)
			continue
		}
		b = append(binary.AppendUvarint(b, uint64(len(part))+1), part...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errForeign = errors.New("idemflight: these bytes are not a record of version 1, or were changed")

// Decode reads what [Encode] wrote, and keeps nothing of b. Anything else is an error.
func Decode(b []byte) (Record, error) {
	if len(b) < headSize+2+sumSize || b[0] != version {
		return Record{}, errForeign
	}
	body, sum := b[:len(b)-sumSize], binary.BigEndian.Uint32(b[len(b)-sumSize:])
	if crc32.Checksum(body, castagnoli) != sum {
		return Record{}, errForeign
	}
	r := Record{State: State(b[1]), Disposition: idemflight.Disposition(b[3])}
	r.Settled, r.Announced, r.Forgotten = b[2]&settled != 0, b[2]&announced != 0, b[2]&forgotten != 0
	if r.State == Absent || r.State >= states || b[2] > knownFlags || r.Disposition > idemflight.Hold {
		return Record{}, errForeign
	}
	rest := body[4:]
	rest = rest[copy(r.ID[:], rest):]
	rest = rest[copy(r.Fingerprint[:], rest):]
	next := func() int64 {
		n := binary.BigEndian.Uint64(rest)
		rest = rest[8:]
		return int64(n)
	}
	r.Epoch, r.Lease, r.Hold = uint64(next()), time.Duration(next()), time.Duration(next())
	r.Leased, r.Started, r.Completed, r.Expires = next(), next(), next(), next()
	for _, part := range []*[]byte{&r.Value, &r.Err} {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n)+1 {
			return Record{}, errForeign
		}
		rest = rest[n:]
		if length > 0 {
			*part = bytes.Clone(rest[:length-1])
			rest = rest[length-1:]
		}
	}
	if len(rest) > 0 {
		return Record{}, errForeign
	}
	return r, nil
}
