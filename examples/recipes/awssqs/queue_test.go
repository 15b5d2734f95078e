package awssqs

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// queue is as much of SQS as the SDK's client calls here, over HTTP. No time passes in it: what was received stays
// hidden until comeBack.
type queue struct {
	t           *testing.T
	maxReceives int // after which a message is a dead letter

	mu       sync.Mutex // guards what follows
	sent     int
	messages []*message
	dead     []string
	hangUp   string // on the next call of this name
}

type message struct {
	ID, Body string
	Receipt  string // handle of the last delivery
	Receives int
	Hidden   bool
	Asked    int // visibility timeout, in seconds, that the last delivery was given by its consumer
}

// comeBack has all timeouts end, and returns what had been asked for.
func (q *queue) comeBack() (asked []int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.messages {
		asked = append(asked, m.Asked)
		m.Hidden, m.Asked = false, 0
	}
	return asked
}

// loseNext hangs up on the next call of that name, which is as if it had never been made.
func (q *queue) loseNext(call string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hangUp = call
}

func (q *queue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

func (q *queue) deadLetters() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.dead)
}

// ServeHTTP speaks the JSON protocol of AWS.
func (q *queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		MessageBody, ReceiptHandle string
		VisibilityTimeout          int
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		q.t.Errorf("a request that is no JSON: %v", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	call := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	if call == q.hangUp {
		q.hangUp = ""
		panic(http.ErrAbortHandler)
	}
	out := map[string]any{}
	switch call {
	case "SendMessage":
		out["MessageId"], out["MD5OfMessageBody"] = q.sendLocked(in.MessageBody), digest(in.MessageBody)
	case "ReceiveMessage":
		out["Messages"] = q.receiveLocked()
	case "DeleteMessage":
		q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return m.Receipt == in.ReceiptHandle })
	case "ChangeMessageVisibility":
		for _, m := range q.messages {
			if m.Receipt == in.ReceiptHandle {
				m.Asked = in.VisibilityTimeout
			}
		}
	default:
		q.t.Errorf("an unexpected call: %q", call)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	_ = json.NewEncoder(w).Encode(out)
}

func (q *queue) sendLocked(body string) (id string) {
	q.sent++
	id = fmt.Sprintf("message-%d", q.sent)
	q.messages = append(q.messages, &message{ID: id, Body: body})
	return id
}

func (q *queue) receiveLocked() (out []map[string]string) {
	q.messages = slices.DeleteFunc(q.messages, func(m *message) bool {
		if m.Hidden || m.Receives < q.maxReceives {
			return false
		}
		q.dead = append(q.dead, m.Body)
		return true
	})
	for _, m := range q.messages {
		if m.Hidden {
			continue
		}
		m.Receives++
		m.Hidden, m.Receipt = true, fmt.Sprintf("%s, delivery %d", m.ID, m.Receives)
		out = append(out, map[string]string{
			"MessageId": m.ID, "ReceiptHandle": m.Receipt, "Body": m.Body, "MD5OfBody": digest(m.Body),
		})
	}
	return out
}

func digest(body string) string {
	sum := md5.Sum([]byte(body))
	return hex.EncodeToString(sum[:])
}
