// Package keys makes the keys of all measurements: 36 bytes in the form of a UUID, as clients send.
package keys

import (
	"math/rand/v2"
)

// stride is what the allocator would take for a key.
const stride = 48

// New returns n keys, the same with each call. The last 12 digits of a key are its number: see
// Number. They share one block of memory, so that the collector has little to do with them.
func New(n int) []string {
	const form = "xxxxxxxx-xxxx-4xxx-8xxx-"
	random := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, n*stride)
	for i := range n {
		key := block[i*stride:]
		for j := range form {
			if key[j] = form[j]; form[j] == 'x' {
				key[j] = digits[random.Uint32()&15]
			}
		}
		for j, rest := len(form)+11, i; j >= len(form); j-- {
			key[j] = digits[rest&15]
			rest >>= 4
		}
	}
	all := string(block)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = all[i*stride : i*stride+36]
	}
	return keys
}

const digits = "0123456789abcdef"

// Number returns which of the keys key is.
func Number(key string) int {
	n := 0
	for i := len(key) - 12; i < len(key); i++ {
		d := int(key[i] - '0')
		if d > 9 {
			d = int(key[i]-'a') + 10
		}
		n = n<<4 | d
	}
	return n
}

// Shuffled returns the numbers below n in random order, the same with each call.
func Shuffled(n int) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}
