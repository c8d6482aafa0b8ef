// The other end in Go: `talk listen PATH` or `talk connect PATH`.
//
// To Go an empty message on a "unixpacket" is the end of the stream, so there is none of those here.

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

func main() {
	address := &net.UnixAddr{Name: os.Args[2], Net: "unixpacket"}
	if os.Args[1] == "connect" {
		talk(must(net.DialUnix(address.Net, nil, address)))
		return
	}
	listener := must(net.ListenUnix(address.Net, address))
	conn := must(listener.AcceptUnix())
	check(listener.Close())
	talk(conn)
}

func talk(conn *net.UnixConn) {
	buffer := make([]byte, 100000)
	for i := 0; i < 3; i++ {
		n := must(conn.Read(buffer))
		must(conn.Write(buffer[:n]))
	}

	// A message that does not fit is truncated, and the next one is whole.
	must(conn.Write([]byte("now longer than mine")))
	begin := must(conn.Read(buffer[:5]))
	n := must(conn.Read(buffer[5:]))
	must(conn.Write(buffer[:begin+n]))

	// A file comes, is read, and goes back.
	control := make([]byte, 1000)
	n, length, _, _, err := conn.ReadMsgUnix(buffer, control)
	check(err)
	messages := must(syscall.ParseSocketControlMessage(control[:length]))
	fds := must(syscall.ParseUnixRights(&messages[0]))
	file := os.NewFile(uintptr(fds[0]), "passed")
	content := must(io.ReadAll(file))
	back := append(buffer[:n], content...)
	_, _, err = conn.WriteMsgUnix(back, syscall.UnixRights(int(file.Fd())), nil)
	check(err)
	check(file.Close())

	// The end of one direction, then of the other.
	check(conn.CloseWrite())
	n = must(conn.Read(buffer))
	fmt.Println(string(buffer[:n]))
	if n, err := conn.Read(buffer); n != 0 || err != io.EOF {
		panic(fmt.Sprint("no end of the stream: ", n, err))
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
