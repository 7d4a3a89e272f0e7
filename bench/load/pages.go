package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/coder/websocket"
)

var (
	hiddenField = regexp.MustCompile(`type="hidden" name="(\w+)" value="([^"]+)"`)
	socketPath  = regexp.MustCompile(`"socketPath": "([^"]+)"`)
)

// A page is the form open in one browser.
type page struct {
	i       int
	cookies string
	hidden  url.Values
	socket  string
	frames  chan []byte // of its WebSocket; closed with it
	close   func()
}

// servePages opens the pages, reports that, and then executes the commands of its input until that ends.
func servePages(o options, host string) {
	pages, opened := openPages(o, host)
	say(opened)
	next := 0
	for line := range lines() {
		var count, atOnce int
		var rate float64
		var until string
		if _, err := fmt.Sscanf(line, "connect %g", &rate); err == nil {
			say(openSockets(o, host, pages, rate))
		} else if _, err := fmt.Sscanf(line, "post %d %d %s", &count, &atOnce, &until); err == nil {
			some := pages[next:min(next+count, len(pages))]
			next += len(some)
			say(postForms(o, host, some, atOnce, until))
		} else {
			fail("not understood: " + line)
		}
	}
	for _, each := range pages {
		if each.close != nil {
			each.close()
		}
	}
}

func openPages(o options, host string) ([]*page, result) {
	pages := make([]*page, o.n)
	wires := wiresOf(o.c, host, o.timeout)
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\n\r\n", o.path, host)
	got := measured(o, func(i int, due time.Time) seen {
		wire := <-wires
		defer func() { wires <- wire }()
		response, err := wire.ask("GET", request)
		if err != nil {
			return seen{err: err}
		}
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			wire.close()
			return seen{err: errors.Join(err, fmt.Errorf("status %d", response.StatusCode))}
		}
		pages[i] = readPage(i, response, text)
		return seen{first: time.Since(due)}
	})
	if got.Failed > 0 {
		fail(fmt.Sprintf("%d forms could not be opened: %v", got.Failed, got.Errors))
	}
	return pages, got
}

func readPage(i int, response *http.Response, text []byte) *page {
	read := &page{i: i, hidden: url.Values{}}
	var cookies []string
	for _, cookie := range response.Cookies() {
		cookies = append(cookies, cookie.Name+"="+cookie.Value)
	}
	read.cookies = strings.Join(cookies, "; ")
	for _, field := range hiddenField.FindAllSubmatch(text, -1) {
		read.hidden.Set(string(field[1]), string(field[2]))
	}
	if found := socketPath.FindSubmatch(text); found != nil {
		read.socket = string(found[1])
	}
	return read
}

// openSockets opens the WebSockets of all pages, `rate` per second; the times are until each is open. A refused one tries
// again, as the page does; its time still counts from when it was first due.
func openSockets(o options, host string, pages []*page, rate float64) result {
	return measured(options{n: len(pages), c: len(pages), rate: rate}, func(i int, due time.Time) seen {
		ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
		defer cancel()
		header := http.Header{"Cookie": {pages[i].cookies}, "Origin": {"http://" + host}}
		address, options := "ws://"+host+pages[i].socket, &websocket.DialOptions{HTTPHeader: header}
		socket, response, err := websocket.Dial(ctx, address, options)
		for response != nil && response.StatusCode == http.StatusServiceUnavailable && ctx.Err() == nil {
			time.Sleep(time.Second)
			socket, response, err = websocket.Dial(ctx, address, options)
		}
		if err != nil {
			return seen{err: err}
		}
		frames := make(chan []byte, 8)
		pages[i].frames = frames
		pages[i].close = func() { _ = socket.CloseNow() }
		go func() {
			defer close(frames)
			for {
				_, frame, err := socket.Read(context.Background())
				if err != nil {
					return
				}
				frames <- frame
			}
		}()
		return seen{first: time.Since(due)}
	})
}

// postForms posts the forms. `first` of the result is the answer to the POST or the first frame, whichever is later, and
// `last` the frame in which all lights are decided. Without WebSockets, both are the answer.
func postForms(o options, host string, pages []*page, atOnce int, until string) result {
	wires := wiresOf(atOnce, host, o.timeout)
	return measured(options{n: len(pages), c: atOnce}, func(i int, due time.Time) seen {
		wire := <-wires
		defer func() { wires <- wire }()
		each := pages[i]
		var saw seen
		followed := make(chan struct{})
		go func() {
			defer close(followed)
			if each.frames != nil {
				saw = each.follow(due, until == "last", o.timeout)
			}
		}()
		err := each.post(wire, o.path)
		answered := time.Since(due)
		if err != nil {
			return seen{err: err}
		}
		<-followed
		saw.first = max(saw.first, answered)
		return saw
	})
}

// follow reads the frames until the first, or until all lights are decided.
func (p *page) follow(due time.Time, toTheEnd bool, timeout time.Duration) (saw seen) {
	expired := time.After(timeout)
	for {
		select {
		case <-expired:
			saw.err = errors.New("no such frame in time")
			return saw
		case frame, isOpen := <-p.frames:
			if !isOpen {
				saw.err = errors.New("the socket was closed")
				return saw
			}
			if saw.first == 0 {
				saw.first = time.Since(due)
			}
			if isDecided(frame) {
				saw.last = time.Since(due)
				saw.err = greenOrError(frame)
				return saw
			}
			if !toTheEnd {
				return saw
			}
		}
	}
}

// post sends the form as the page's script does.
func (p *page) post(wire *wire, path string) error {
	fields := url.Values{
		"userId": {userID(p.i)}, "userName": {fmt.Sprintf("Bench %d", p.i)}, "email": {userID(p.i) + "@example.org"},
		"userPw": {password}, "userPw2": {password},
	}
	for name, values := range p.hidden {
		fields[name] = values
	}
	var request bytes.Buffer
	body := fields.Encode()
	fmt.Fprintf(&request, "POST %s HTTP/1.1\r\nHost: %s\r\nOrigin: http://%[2]s\r\nCookie: %s\r\n"+
		"Accept: application/json\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		path, wire.address, p.cookies, len(body), body)
	response, err := wire.ask("POST", request.Bytes())
	if err != nil {
		return err
	}
	defer wire.finish(response)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

// gets requests one page repeatedly; `first` is the time until the complete answer.
func gets(o options, host string) result {
	wires := wiresOf(o.c, host, o.timeout)
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", o.path, host)
	return measured(o, func(_ int, due time.Time) seen {
		wire := <-wires
		defer func() { wires <- wire }()
		response, err := wire.ask("GET", request)
		if err != nil {
			return seen{err: err}
		}
		wire.finish(response)
		if response.StatusCode != http.StatusOK {
			return seen{err: fmt.Errorf("status %d", response.StatusCode)}
		}
		return seen{first: time.Since(due)}
	})
}
