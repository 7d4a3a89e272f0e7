// Load drives sign-ups at one address and prints the results as JSON, one line per measurement.
//
//	load signups -url U -n 1000 -c 50     sign-ups over SSE, 50 at a time; with -rate R, R of them a second; with -due F,
//	                                      each at the millisecond that its line of the file F gives
//	load streams -url U -n 5000 -rate 500 opens streams and holds those that stay pending until its input ends
//	load pages   -url U -n 200 -c 4       opens the form n times, then follows the commands of its input:
//	                                      "connect R" opens their WebSockets, R a second;
//	                                      "post M C first|last" posts the next M forms, C at a time, and waits for the
//	                                      first or the last frame of those that have a WebSocket
//	load gets    -url U -rate 20 -n 200   GETs of one page
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Flags of all modes; each mode uses some of them.
type options struct {
	url     string
	path    string
	n       int
	c       int
	rate    float64
	due     []time.Duration
	timeout time.Duration
}

func main() {
	if len(os.Args) < 2 {
		fail("say what to do: signups, streams, pages or gets")
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.url, "url", "", "http://host:port of the gateway, on the loopback")
	flags.StringVar(&o.path, "path", "", "of the page, for gets and pages")
	flags.IntVar(&o.n, "n", 1000, "how many in all")
	flags.IntVar(&o.c, "c", 50, "how many at a time; with -rate the most that are under way")
	flags.Float64Var(&o.rate, "rate", 0, "begun in a second; 0: the next when one has ended")
	due := flags.String("due", "", "file with the times at which each is due, in milliseconds from the start")
	flags.DurationVar(&o.timeout, "timeout", 60*time.Second, "for each")
	_ = flags.Parse(os.Args[2:]) // ExitOnError
	host, err := loopback(o.url)
	if err != nil {
		fail(err.Error())
	}
	if *due != "" {
		o.due = timesIn(*due)
		o.n = len(o.due)
	}
	switch os.Args[1] {
	case "signups":
		say(signUps(o, host))
	case "streams":
		holdStreams(o, host)
	case "pages":
		servePages(o, host)
	case "gets":
		say(gets(o, host))
	default:
		fail("unknown: " + os.Args[1])
	}
}

func say(result any) {
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fail(err.Error())
	}
}

// timesIn reads a file with a number of milliseconds in each line.
func timesIn(path string) (times []time.Duration) {
	file, err := os.Open(path)
	if err != nil {
		fail(err.Error())
	}
	defer file.Close()
	for in := bufio.NewScanner(file); in.Scan(); {
		milliseconds, err := strconv.ParseFloat(in.Text(), 64)
		if err != nil {
			fail(err.Error())
		}
		times = append(times, time.Duration(milliseconds*float64(time.Millisecond)))
	}
	return times
}

// lines sends each line of the input; the channel closes at its end.
func lines() <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			out <- in.Text()
		}
	}()
	return out
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, "load:", reason)
	os.Exit(2)
}
