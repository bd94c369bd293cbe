// The driver `seaweedfs-csi-driver` of the embedded cluster: what the official one of that name does
// with the same volume attributes, as far as the platform needs it.
//
// Three commands of one program. `provisioner` makes volumes for claims. On each node `node` speaks
// CSI to the kubelet, and `mounter` holds the mounts, each a process of its own: so the first may end
// and start again while people work, and only the second has privileges.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"
)

const driver = "seaweedfs-csi-driver"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: seaweedfs-csi provisioner|node|mounter [flags]")
		os.Exit(2)
	}
	klog.InitFlags(nil)
	filer := flag.String("filer", "", "host:port of the filer")
	master := flag.String("master", "", "host:port of the master")
	name := flag.String("node", "", "name of this node")
	kubelet := flag.String("kubelet", "/var/lib/kubelet", "the kubelet's root folder")
	flag.CommandLine.Parse(os.Args[2:])

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	var err error
	switch os.Args[1] {
	case "provisioner":
		err = provision(ctx)
	case "node":
		err = serveNode(ctx, *name, *kubelet)
	case "mounter":
		err = serveMounts(ctx, *kubelet, *filer, *master)
	default:
		err = fmt.Errorf("there is no command %q", os.Args[1])
	}
	if err != nil {
		klog.ErrorS(err, "Ending")
		os.Exit(1)
	}
}
