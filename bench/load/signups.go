package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const password = "nine lives of a bench"

// Unique to this run, so that no user exists already.
var run = func() uint64 {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // never fails
	return binary.BigEndian.Uint64(random)
}()

// A seen is the outcome of one sign-up. Its times are measured from the time at which the sign-up was due.
type seen struct {
	first time.Duration // until the first event
	last  time.Duration // until all lights are decided; 0 while they are not
	// Events of the stream.
	events int
	err    error
}

// signUps runs all sign-ups to their end.
func signUps(o options, host string) result {
	wires := wiresOf(o.c, host, o.timeout)
	return measured(o, func(i int, due time.Time) seen {
		wire := <-wires
		defer func() { wires <- wire }()
		return signUp(wire, i, due, true)
	})
}

// holdStreams opens the streams, reports that, and holds them until the input ends. A refused one tries again after its
// Retry-After, as a client does; its time still counts from when it was first due.
func holdStreams(o options, host string) {
	var guard sync.Mutex
	var held []*wire
	opened := measured(o, func(i int, due time.Time) seen {
		wire := newWire(host, o.timeout)
		saw := signUp(wire, i, due, false)
		for again := retryAfter(saw.err); again > 0 && time.Since(due)+again < o.timeout; again = retryAfter(saw.err) {
			time.Sleep(again)
			saw = signUp(wire, i, due, false)
		}
		guard.Lock()
		defer guard.Unlock()
		held = append(held, wire)
		return saw
	})
	say(opened)
	for range lines() {
	}
	for _, wire := range held {
		wire.close()
	}
}

// A refusal is an answer other than a stream.
type refusal struct {
	status     int
	retryAfter string
}

func (r refusal) Error() string { return fmt.Sprintf("status %d", r.status) }

// retryAfter is the pause that the server asks for; 0 if it does not ask for a retry.
func retryAfter(err error) time.Duration {
	var refused refusal
	if !errors.As(err, &refused) {
		return 0
	}
	seconds, _ := strconv.Atoi(refused.retryAfter) // 0 if it is not a number
	return time.Duration(seconds) * time.Second
}

// signUp posts one sign-up and reads its stream to the end, or only to the first event.
func signUp(wire *wire, i int, due time.Time, toTheEnd bool) (saw seen) {
	response, err := wire.ask("POST", signUpRequest(wire.address, i))
	if err != nil {
		return seen{err: err}
	}
	if response.StatusCode != http.StatusOK {
		wire.finish(response)
		return seen{err: refusal{response.StatusCode, response.Header.Get("Retry-After")}}
	}
	wire.lines.Reset(response.Body)
	for {
		line, err := wire.lines.ReadSlice('\n')
		if err != nil {
			wire.close()
			saw.err = fmt.Errorf("the stream ended early: %w", err)
			return saw
		}
		data, isData := bytes.CutPrefix(line, []byte("data:"))
		if !isData {
			continue
		}
		saw.events++
		if saw.first == 0 {
			saw.first = time.Since(due)
			if !toTheEnd {
				return saw
			}
		}
		if isDecided(data) {
			saw.last = time.Since(due)
			saw.err = greenOrError(data)
			wire.finish(response)
			return saw
		}
	}
}

func signUpRequest(host string, i int) []byte {
	body := fmt.Sprintf(
		`{"userId":"%[1]s","userPw":"%[2]s","email":"%[1]s@example.org","userName":"Bench %[3]d","role":"ROLE_USER"}`,
		userID(i), password, i)
	return fmt.Appendf(nil, "POST /user HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
		"Accept: text/event-stream\r\nContent-Length: %d\r\n\r\n%s", host, len(body), body)
}

// userID spreads the IDs over the whole range, like those of real users: consecutive ones would all hit the same few pages
// of a database's indexes. The factor is odd, so the IDs are unique.
func userID(i int) string { return fmt.Sprintf("b%016x", (run+uint64(i))*0x9e3779b97f4a7c15) }

// isDecided looks only at the statuses, so that any server that uses these names can be measured.
func isDecided(data []byte) bool {
	isState := bytes.Contains(data, []byte(`"SUCCESS"`)) || bytes.Contains(data, []byte(`"FAIL"`))
	return isState && !bytes.Contains(data, []byte(`"PENDING"`))
}

func greenOrError(data []byte) error {
	if bytes.Contains(data, []byte(`"FAIL"`)) {
		return errors.New("a light is red")
	}
	return nil
}
