package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A wire is one connection to the server, used for one request after another. It replaces net/http's client, which
// has two goroutines per connection and passes everything on twice, because the load shares the cores with the measured
// server.
type wire struct {
	address string
	timeout time.Duration
	conn    net.Conn
	reader  *bufio.Reader
	lines   *bufio.Reader // over the body of an answer
}

func newWire(address string, timeout time.Duration) *wire {
	return &wire{
		address: address, timeout: timeout,
		reader: bufio.NewReaderSize(nil, 4096), lines: bufio.NewReaderSize(nil, 4096),
	}
}

func wiresOf(count int, host string, timeout time.Duration) chan *wire {
	wires := make(chan *wire, count)
	for range count {
		wires <- newWire(host, timeout)
	}
	return wires
}

// ask sends a complete request and reads the head of the answer. An idle connection that the server has closed is replaced.
func (w *wire) ask(method string, request []byte) (*http.Response, error) {
	isFresh := w.conn == nil
	response, err := w.tryToAsk(method, request)
	if err != nil && !isFresh && !isTimeout(err) {
		w.close()
		response, err = w.tryToAsk(method, request)
	}
	if err != nil {
		w.close()
	}
	return response, err
}

func (w *wire) tryToAsk(method string, request []byte) (*http.Response, error) {
	if w.conn == nil {
		conn, err := net.DialTimeout("tcp", w.address, w.timeout)
		if err != nil {
			return nil, err
		}
		w.conn = conn
		w.reader.Reset(conn)
	}
	if err := w.conn.SetDeadline(time.Now().Add(w.timeout)); err != nil {
		return nil, err
	}
	if _, err := w.conn.Write(request); err != nil {
		return nil, err
	}
	return http.ReadResponse(w.reader, &http.Request{Method: method})
}

// finish reads the answer to its end, so that the connection can be reused; it is closed if that takes long.
func (w *wire) finish(response *http.Response) {
	if w.conn == nil {
		return
	}
	_ = w.conn.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.Close {
		w.close()
	}
}

func (w *wire) close() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// loopback returns host:port of a URL, which must be on this machine: no other machine is ever put under load.
func loopback(address string) (string, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	ip := net.ParseIP(parsed.Hostname())
	if parsed.Scheme != "http" || parsed.Port() == "" || ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("-url must be http://<loopback address>:<port>, not %q", address)
	}
	return parsed.Host, nil
}
