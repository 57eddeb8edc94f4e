// A Yamux peer for the tests: one session over TCP or TLS, with somebody else's library.
//
// See ../README.md for its command line and for the commands that it reads.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	alpn     = "tls-tunnel/1"
	patience = 60 * time.Second
)

type stream interface {
	io.ReadWriter
	CloseWrite() error
	Reset() error
}

type session interface {
	Open() (stream, error)
	Accept() (stream, error)
	Ping() error
	GoAway() error
	Fail() error
	Close() error
}

var (
	library = flag.String("library", "hashicorp", "hashicorp or libp2p-go")
	connect = flag.String("connect", "", "dial HOST:PORT and be the Yamux client")
	listen  = flag.Bool("listen", false, "listen on loopback, print the port, be the Yamux server")
	ca      = flag.String("ca", "", "speak TLS and trust this certificate (with -connect)")
	cert    = flag.String("cert", "", "speak TLS and show this certificate (with -listen)")
	key     = flag.String("key", "", "the key of -cert")
	mode    = flag.String("mode", "echo", "what to do with the streams that come in")
)

func main() {
	flag.Parse()
	conn, err := dialOrListen()
	if err == nil {
		err = run(conn)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(conn net.Conn) error {
	s, err := start(*library, conn, *listen, *mode == "reset")
	if err != nil {
		return err
	}
	p := &peer{session: s, released: make(chan struct{})}
	go p.accept()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if answer, err := p.obey(words[0], words[1:]); err != nil {
			say("failed %v", err)
		} else {
			say("ok %s", answer)
		}
	}
	return nil
}

// --- The connection -------------------------------------------------------------------------

func dialOrListen() (net.Conn, error) {
	if *listen {
		return accept()
	}
	conn, err := net.Dial("tcp", *connect)
	if err != nil || *ca == "" {
		return conn, err
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := tls.Client(conn, &tls.Config{
		RootCAs: roots, ServerName: "localhost", NextProtos: []string{alpn},
	})
	return client, client.Handshake()
}

func accept() (net.Conn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	if err != nil || *cert == "" {
		return conn, err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return nil, err
	}
	server := tls.Server(conn, &tls.Config{
		Certificates: []tls.Certificate{pair}, NextProtos: []string{alpn},
	})
	return server, server.Handshake()
}

// --- Streams that come in -------------------------------------------------------------------

type peer struct {
	session  session
	released chan struct{}
	unused   []stream
}

func (p *peer) accept() {
	for {
		s, err := p.session.Accept()
		if err != nil {
			say("seen end")
			return
		}
		go func() {
			if err := p.serve(s); err != nil {
				say("seen error %v", err)
			} else {
				say("seen done")
			}
		}()
	}
}

func (p *peer) serve(s stream) error {
	name, argument, _ := strings.Cut(*mode, ":")
	switch name {
	case "echo":
		if _, err := io.Copy(s, s); err != nil {
			return err
		}
		return s.CloseWrite()
	case "answer":
		return answer(s)
	case "hold":
		<-p.released
		return answer(s)
	case "source":
		size, _ := strconv.Atoi(argument)
		if err := send(s, size); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, s)
		return err
	case "reset":
		if _, err := s.Read(make([]byte, 1)); err != nil {
			return err
		}
		return s.Reset()
	}
	return fmt.Errorf("unknown mode %s", *mode)
}

// answer reads everything and then says what it was.
func answer(s stream) error {
	hash := sha256.New()
	if _, err := io.Copy(hash, s); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s, "%x", hash.Sum(nil)); err != nil {
		return err
	}
	return s.CloseWrite()
}

// --- Commands -------------------------------------------------------------------------------

func (p *peer) obey(command string, words []string) (string, error) {
	numbers := make([]int, len(words))
	for i, word := range words {
		numbers[i], _ = strconv.Atoi(word)
	}
	switch command {
	case "echo":
		return "", p.echo(numbers[0], numbers[1], numbers[2])
	case "ask":
		return p.ask(numbers[0])
	case "reset":
		return "", p.reset()
	case "wait":
		return p.wait()
	case "unused":
		s, err := p.session.Open()
		p.unused = append(p.unused, s)
		return "", err
	case "release":
		close(p.released)
		return "", nil
	case "ping":
		return "", p.session.Ping()
	case "goaway":
		return "", p.session.GoAway()
	case "fail":
		return "", p.session.Fail()
	case "close":
		return "", p.session.Close()
	}
	return "", fmt.Errorf("unknown command %s", command)
}

// echo opens count streams, at most parallel at a time, and wants on each what it sent.
func (p *peer) echo(count, size, parallel int) error {
	var wait sync.WaitGroup
	slots := make(chan struct{}, parallel)
	results := make(chan error, count)
	for range count {
		slots <- struct{}{}
		wait.Add(1)
		go func() {
			defer wait.Done()
			results <- p.echoOnce(size)
			<-slots
		}()
	}
	wait.Wait()
	close(results)
	for err := range results {
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) echoOnce(size int) error {
	s, err := p.session.Open()
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- send(s, size) }()
	hash, expected := sha256.New(), sha256.New()
	if _, err := io.Copy(hash, s); err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	write(expected, size)
	if string(hash.Sum(nil)) != string(expected.Sum(nil)) {
		return errors.New("the echo differs")
	}
	return nil
}

// ask sends, says that this was all, and then reads the answer.
func (p *peer) ask(size int) (string, error) {
	s, err := p.session.Open()
	if err != nil {
		return "", err
	}
	if err := send(s, size); err != nil {
		return "", err
	}
	hash := sha256.New()
	length, err := io.Copy(hash, s)
	return fmt.Sprintf("%d %x", length, hash.Sum(nil)), err
}

// reset waits for a byte, so that the stream is known, and resets it.
func (p *peer) reset() error {
	s, err := p.session.Open()
	if err != nil {
		return err
	}
	if _, err := s.Write([]byte("?")); err != nil {
		return err
	}
	if _, err := s.Read(make([]byte, 1)); err != nil {
		return err
	}
	return s.Reset()
}

// wait says how a stream ended.
func (p *peer) wait() (string, error) {
	s, err := p.session.Open()
	if err != nil {
		return "", err
	}
	if _, err := s.Write([]byte("?")); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		return "reset", nil
	}
	return "end", nil
}

// --- Bytes ----------------------------------------------------------------------------------

// The byte at i is i mod 251, so that bytes out of place are seen.
var pattern = func() []byte {
	block := make([]byte, 251*256)
	for i := range block {
		block[i] = byte(i % 251)
	}
	return block
}()

func write(w io.Writer, size int) error {
	for size > 0 {
		n, err := w.Write(pattern[:min(size, len(pattern))])
		if err != nil {
			return err
		}
		size -= n
	}
	return nil
}

func send(s stream, size int) error {
	if err := write(s, size); err != nil {
		return err
	}
	return s.CloseWrite()
}

var output sync.Mutex

func say(format string, arguments ...any) {
	output.Lock()
	defer output.Unlock()
	fmt.Println(strings.TrimSpace(fmt.Sprintf(format, arguments...)))
}
