package main

import (
	"errors"
	"math"
	"net"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A result is one line of the output. Times are in milliseconds, without the failed sign-ups.
type result struct {
	N       int            `json:"n"`
	Failed  int            `json:"failed"`
	Seconds float64        `json:"seconds"`
	Rate    float64        `json:"rate"` // per second
	First   *percentiles   `json:"first_ms"`
	Last    *percentiles   `json:"last_ms"`
	Wait    *percentiles   `json:"between_ms"` // from the first event to the last
	Events  float64        `json:"events"`     // the mean number
	Errors  map[string]int `json:"errors,omitempty"`
	CPU     float64        `json:"load_cpu_ms"` // of this program, per sign-up
}

type percentiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// measured runs `one` n times: c at a time, rate times a second, or at the given times. It measures from the time at which
// each is due, so that waiting for a turn counts.
func measured(o options, one func(i int, due time.Time) seen) result {
	all := make([]seen, o.n)
	type turn struct {
		i   int
		due time.Time
	}
	turns := make(chan turn)
	var workers sync.WaitGroup
	for range min(o.c, o.n) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for next := range turns {
				if next.due.IsZero() {
					next.due = time.Now()
				}
				all[next.i] = one(next.i, next.due)
			}
		}()
	}
	cpu, begun := cpuTime(), time.Now()
	for i := range o.n {
		next := turn{i: i}
		if o.due != nil {
			next.due = begun.Add(o.due[i])
			time.Sleep(time.Until(next.due))
		} else if o.rate > 0 {
			next.due = begun.Add(time.Duration(float64(i) / o.rate * float64(time.Second)))
			time.Sleep(time.Until(next.due))
		}
		turns <- next
	}
	close(turns)
	workers.Wait()
	return summary(all, time.Since(begun), cpuTime()-cpu)
}

func summary(all []seen, took, cpu time.Duration) result {
	out := result{N: len(all), Seconds: took.Seconds(), Errors: map[string]int{}}
	var first, last, wait []float64
	events := 0
	for _, saw := range all {
		if saw.err != nil {
			out.Failed++
			out.Errors[shortly(saw.err)]++
			continue
		}
		events += saw.events
		first = append(first, ms(saw.first))
		if saw.last > 0 {
			last = append(last, ms(saw.last))
			wait = append(wait, ms(saw.last-saw.first))
		}
	}
	out.Rate = float64(out.N-out.Failed) / out.Seconds
	out.First, out.Last, out.Wait = percentilesOf(first), percentilesOf(last), percentilesOf(wait)
	out.Events = float64(events) / float64(max(1, len(first)))
	out.CPU = ms(cpu) / float64(max(1, out.N))
	return out
}

func percentilesOf(values []float64) *percentiles {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	at := func(share float64) float64 { return values[int(math.Ceil(share*float64(len(values))))-1] }
	return &percentiles{at(.5), at(.95), at(.99), values[len(values)-1]}
}

// shortly removes addresses and ports, so that similar errors count together.
func shortly(err error) string {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Op + ": " + shortly(request.Err)
	}
	var network *net.OpError
	if errors.As(err, &network) {
		return network.Op + ": " + network.Err.Error()
	}
	return err.Error()
}

func ms(d time.Duration) float64 { return math.Round(float64(d.Microseconds())) / 1000 }

// cpuTime is the CPU time that this program has used so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
