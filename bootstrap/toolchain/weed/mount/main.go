// One mount of a folder of the filer, with a size that holds.
//
// weed's own `mount` looks once a minute whether a collection is beyond its quota, so that a fast
// writer goes beyond by gigabytes, and then loses what was already accepted. This is the same file
// system with a gate before its writes: what the master says is stored, and what was written since,
// are within the size, or the write is refused (ENOSPC) before anything is taken.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/seaweedfs/seaweedfs/weed/mount"
	"github.com/seaweedfs/seaweedfs/weed/mount/meta_cache"
	"github.com/seaweedfs/seaweedfs/weed/pb"
	"github.com/seaweedfs/seaweedfs/weed/pb/filer_pb"
	"github.com/seaweedfs/seaweedfs/weed/storage/types"
	flag "github.com/seaweedfs/seaweedfs/weed/util/fla9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	flag.Set("logtostderr", "true")
	filer := flag.String("filer", "", "host:port of the filer")
	master := flag.String("master", "", "host:port of the master, which knows how much is stored")
	path := flag.String("path", "", "the folder on the filer")
	dir := flag.String("dir", "", "where to mount it")
	collection := flag.String("collection", "", "what the volume's content is stored as")
	capacity := flag.Uint64("capacity", 0, "bytes that the collection may hold; 0 for any")
	replication := flag.String("replication", "", "as weed has it, such as 001")
	disk := flag.String("disk", "", "kind of disk, as weed has it")
	dataCenter := flag.String("data-center", "", "where to write first")
	cacheDir := flag.String("cache-dir", os.TempDir(), "for names and content on their way")
	cacheMB := flag.Int64("cache-mb", 0, "MB of content to keep there")
	uid := flag.Uint("uid", 1000, "owner of the folder itself")
	gid := flag.Uint("gid", 100, "group of the folder itself")
	uidMap := flag.String("uid-map", "", "as weed has it")
	gidMap := flag.String("gid-map", "", "as weed has it")
	flag.Parse()

	if err := serve(&mount.Option{
		MountDirectory: *dir, FilerAddresses: []pb.ServerAddress{pb.ServerAddress(*filer)},
		GrpcDialOption:     grpc.WithTransportCredentials(insecure.NewCredentials()),
		FilerMountRootPath: *path, Collection: *collection, Replication: *replication,
		DiskType: types.ToDiskType(*disk), DataCenter: *dataCenter,
		ChunkSizeLimit: chunkSize, ConcurrentWriters: openedChunks, CacheDir: *cacheDir, CacheSizeMB: *cacheMB,
		Umask: 0o022, MountUid: uint32(*uid), MountGid: uint32(*gid), MountMode: os.ModeDir | 0o775,
		MountCtime: time.Now(), MountMtime: time.Now(), VolumeServerAccess: "direct",
	}, pb.ServerAddress(*master), *capacity, *uidMap, *gidMap); err != nil {
		fmt.Fprintf(os.Stderr, "weed-mount: %v\n", err)
		os.Exit(1)
	}
}

// serve mounts and stays until the mount is gone.
func serve(option *mount.Option, master pb.ServerAddress, capacity uint64, uids, gids string) error {
	mapper, err := meta_cache.NewUidGidMapper(uids, gids)
	if err != nil {
		return err
	}
	option.UidGidMapper = mapper
	if err := answers(option); err != nil {
		return fmt.Errorf("the filer %s does not answer: %w", option.FilerAddresses[0], err)
	}
	usage := &usage{
		master: master, dial: option.GrpcDialOption, collection: option.Collection, capacity: capacity,
		kept: map[uint64]uint64{},
	}
	if capacity > 0 {
		if err := usage.refresh(); err != nil {
			return fmt.Errorf("the master %s does not say how much is stored: %w", master, err)
		}
		go usage.follow()
	}
	files := mount.NewSeaweedFileSystem(option)
	server, err := fuse.NewServer(&limited{WFS: files, usage: usage}, option.MountDirectory, &fuse.MountOptions{
		AllowOther: true, MaxBackground: 128, MaxWrite: 1 << 20, MaxReadAhead: 1 << 20,
		FsName: fmt.Sprintf("%s:%s", option.FilerAddresses[0], option.FilerMountRootPath), Name: "seaweedfs",
		DirectMount: true,
	})
	if err != nil {
		return err
	}
	files.StartBackgroundTasks()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		syscall.Unmount(option.MountDirectory, syscall.MNT_DETACH)
	}()
	server.Serve()
	return nil
}

// answers asks the filer once, so that a mount that cannot work is an error and no empty folder.
func answers(option *mount.Option) error {
	return pb.WithOneOfGrpcFilerClients(false, option.FilerAddresses, option.GrpcDialOption,
		func(client filer_pb.SeaweedFilerClient) error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := client.GetFilerConfiguration(ctx, &filer_pb.GetFilerConfigurationRequest{})
			return err
		})
}
